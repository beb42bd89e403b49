"""Does an outcome follow a declared dose (``doses:`` of the specification)?

A dose is, for example, the dose of ``mix``, the share of multiplicative blocks, or the weight of a penalty. A replicate has
one network per dose, so its least-squares slope over the dose is one number; the slopes are tested by sign flips, as
differences are. Beside the slope stands Page's L, which asks for any monotone trend of ranks within replicates (two-sided:
twice the smaller p of both directions; steps of one dose are averaged first). Slope and means use the same replicates: those
eligible at every dose.
Source: https://www.jstor.org/stable/2282901
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from analysis.effects.paired import cell_values, exploratory, left_out, slope_weights, tested, weighted_sum
from analysis.effects.readings import POOLED, same_budgets
from analysis.inputs import Inputs
from analysis.stats.spread import sd
from analysis.trials.grid import ConfirmGrid, Floats, context_label, label
from analysis.trials.outcomes import ReadOutcome, main_outcomes
from analysis.trials.records import agrees
from analysis.words.columns import OF_SCALE, count, number, p_value, shared, tested_columns, text
from analysis.words.rows import Rows
from search_spaces import Dose
from study.registry import TABLES

_HEAD = (
    text("study", meaning="the study's name"),
    text("name", "Dose of", meaning="the dose, as the specification calls it"),
    *shared("dataset stratum outcome scale"),
)


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A declared dose in one stratum or several: ``cells[stratum, step]`` are positions in the grid."""

    name: str
    dose: Dose
    dataset: str
    stratum: str
    cells: list[list[int]]

    def values(self, grid: ConfirmGrid, outcome: ReadOutcome) -> Floats:
        """One row per step, one column per replicate: means over strata; NaN unless eligible at every step and stratum."""
        strata = []
        for cells in self.cells:
            equal = same_budgets(grid, cells, epochs="epochs" not in self.dose.factors())
            values = cell_values(grid, outcome, cells)
            strata.append(np.where(equal & np.isfinite(values).all(axis=0), values, np.nan))
        return np.asarray(np.mean(strata, axis=0))


@TABLES.register(
    "dose_response",
    formula="mean outcome by declared dose, over the replicates eligible at every dose",
    source="https://www.jstor.org/stable/2282901",
    title="Outcome by dose",
    place=2.6,
    columns=(
        *_HEAD,
        number("dose", "of the declared dose", "Dose", meaning="how much of it the cells hold"),
        text("levels", "Levels", meaning="levels of these cells"),
        number(
            "mean",
            "of the outcome; a geometric mean where scale is log ratio",
            "Mean",
            "level",
            meaning="mean over the replicates that are eligible at every dose",
        ),
        number("sd", OF_SCALE, "Spread", "effect"),
        count("n_pairs", "Replicates", meaning="replicates eligible at every dose"),
        count("n_trained", "Trained", meaning="networks at this dose that completed"),
        count("n_failures", "Failures", meaning="networks at this dose that collapsed or diverged"),
    ),
    main="name dataset stratum outcome dose levels mean sd n_pairs n_trained n_failures",
    row="one dose, dataset, outcome and stratum; mean and sd over the replicates eligible at every dose",
)
def dose_rows(inputs: Inputs) -> Rows:
    """One row per dose, in increasing order; empty where the study declares no dose."""
    return [head | row for head, ladder, outcome in _readings(inputs) for row in _steps(inputs.grid, ladder, outcome)]


@TABLES.register(
    "dose_trends",
    formula="least-squares slope over the dose within a replicate, its mean, sign-flip interval and p; Page's L test beside "
    "it; exploratory",
    source="https://www.jstor.org/stable/2282901",
    title="Dose-response: trends",
    place=2.5,
    columns=(
        *_HEAD,
        count("n_doses", "Doses", meaning="different doses"),
        *tested_columns(
            "Slope per unit of dose", pairs="Replicates", meaning="mean over replicates of the least-squares slope"
        ),
        p_value("p_page", "p (Page)", meaning="two-sided p of Page's test of a monotone trend"),
        *shared("n_excluded n_failures label"),
    ),
    main="name dataset stratum outcome n_doses estimate sd p_sign_flip p_page n_pairs n_excluded n_failures label",
    row="one declared dose, dataset, outcome and stratum; estimate is the mean slope: the outcome (its logarithm where scale "
    "is log ratio) per unit of dose",
)
def trend_rows(inputs: Inputs) -> Rows:
    """One row per declared dose, dataset, outcome and stratum; empty where the study declares no dose."""
    return [head | _trend(inputs.grid, ladder, outcome) for head, ladder, outcome in _readings(inputs)]


def page_p(values: Floats) -> float | None:
    """Two-sided p of Page's L: ``values`` has one row per replicate and one column per dose, in order of dose.

    Exact for small tables, else normal (scipy). ``None`` below two replicates or three doses.
    """
    if values.shape[0] < 2 or values.shape[1] < 3:
        return None
    one_sided = [float(stats.page_trend_test(v).pvalue) for v in (values, values[:, ::-1])]
    return min(1.0, 2 * min(one_sided))


def _readings(inputs: Inputs) -> Iterator[tuple[dict[str, Any], Ladder, ReadOutcome]]:
    """Each ladder on each outcome, and what names it in a table."""
    outcomes = main_outcomes(inputs.spec, inputs.trials)
    for ladder in _ladders(inputs.grid):
        named = {"name": ladder.name, "dataset": ladder.dataset, "stratum": ladder.stratum}
        for outcome in outcomes:
            yield named | {"outcome": outcome.name, "scale": outcome.scale}, ladder, outcome


def _ladders(grid: ConfirmGrid) -> Iterator[Ladder]:
    """Each declared dose and dataset where every step has a cell: all strata together, then each where there are several."""
    for name, dose in grid.spec.doses.items():
        dose = dose.model_copy(update={"steps": sorted(dose.steps, key=lambda step: step.dose)})
        found: dict[str, dict[str, dict[int, int]]] = {}
        for i, cell in enumerate(grid.cells):
            others = {f: v for f, v in cell.levels.items() if f not in dose.factors()}
            for step, asked in enumerate(dose.steps):
                if agrees(cell.levels, asked.levels):
                    found.setdefault(cell.dataset, {}).setdefault(context_label(others), {})[step] = i
        for dataset, contexts in found.items():
            whole = {context: at for context, at in contexts.items() if len(at) == len(dose.steps)}
            strata = {context: [at[step] for step in range(len(at))] for context, at in whole.items()}
            groups = {POOLED: list(strata.values())} if strata else {}
            groups |= {context: [cells] for context, cells in strata.items()} if len(strata) > 1 else {}
            for stratum, cells in groups.items():
                yield Ladder(name=name, dose=dose, dataset=dataset, stratum=stratum, cells=cells)


def _steps(grid: ConfirmGrid, ladder: Ladder, outcome: ReadOutcome) -> Iterator[dict[str, Any]]:
    values = ladder.values(grid, outcome)
    used = values[:, np.isfinite(values).all(axis=0)]
    for i, step in enumerate(ladder.dose.steps):
        cells = [cells[i] for cells in ladder.cells]
        mean, n = (float(used[i].mean()) if used.size else None), used.shape[1]
        yield {
            "dose": step.dose,
            "levels": label(step.levels),
            "mean": float(np.exp(mean)) if mean is not None and outcome.scale == "log ratio" else mean,
            "sd": sd(used[i]),
            "n_pairs": n,
            "n_trained": int((grid.rows[cells] >= 0).sum()),
            "n_failures": left_out(grid, cells, 0)["n_failures"],
        }


def _trend(grid: ConfirmGrid, ladder: Ladder, outcome: ReadOutcome) -> dict[str, Any]:
    values = ladder.values(grid, outcome)
    x = np.array([step.dose for step in ladder.dose.steps])
    numbers = tested(weighted_sum(values, slope_weights(x)), grid.spec.alpha)
    used = values[:, np.isfinite(values).all(axis=0)]
    by_dose = np.stack([used[x == dose].mean(axis=0) for dose in np.unique(x)])
    every = [cell for cells in ladder.cells for cell in cells]
    return {
        "n_doses": len(by_dose),
        **numbers,
        "p_page": page_p(by_dose.T),
        **left_out(grid, every, numbers["n_pairs"]),
        "label": exploratory(grid.spec),
    }
