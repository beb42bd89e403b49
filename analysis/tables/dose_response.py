"""https://www.jstor.org/stable/2282901 (Page 1963): does an outcome follow a declared dose (``doses:`` of the specification)?

The dose of ``mix``, the share of multiplicative blocks, the weight of a penalty: a replicate has one network at each dose, so
its least-squares slope over the dose is one number, tested by sign flips as a difference is. Beside it Page's L, which asks
for any monotone trend of ranks within replicates (two-sided: twice the smaller of both directions; steps of one dose are
averaged first). The replicates behind slope and means are the same: those eligible at every dose.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from analysis.effects.differences import main_outcomes
from analysis.effects.paired import (
    TESTED_FIELDS,
    cell_values,
    exploratory,
    left_out,
    same_budgets,
    slope_weights,
    tested,
    weighted_sum,
)
from analysis.effects.readings import POOLED
from analysis.inputs import Inputs
from analysis.trials.grid import ConfirmGrid, Floats, confirm_grid, context_label
from analysis.trials.outcomes import ReadOutcome
from analysis.trials.records import agrees
from analysis.words.export import Column
from search_spaces import Dose, Spec
from study.registry import TABLES

_HEAD = [(name, pa.string()) for name in ("study", "name", "dataset", "stratum", "outcome", "scale")]
SCHEMA = pa.schema(
    [
        *_HEAD,
        ("dose", pa.float64()),
        ("levels", pa.string()),
        pa.field("mean", pa.float64(), metadata={"unit": "of the outcome; a geometric mean where scale is log ratio"}),
        pa.field("sd", pa.float64(), metadata={"unit": "of the outcome, its logarithm where scale is log ratio"}),
        *((name, pa.int64()) for name in ("n_pairs", "n_trained", "n_failures")),
    ],
    metadata={"row": "one dose, dataset, outcome and stratum; mean and sd over the replicates eligible at every dose"},
)
TRENDS_SCHEMA = pa.schema(
    [
        *_HEAD,
        ("n_doses", pa.int64()),
        *TESTED_FIELDS,
        ("p_page", pa.float64()),
        ("n_excluded", pa.int64()),
        ("n_failures", pa.int64()),
        ("label", pa.string()),
    ],
    metadata={
        "row": "one declared dose, dataset, outcome and stratum; estimate is the mean slope: the outcome (its logarithm "
        "where scale is log ratio) per unit of dose"
    },
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
        """One row a step, one column a replicate: means over strata; NaN unless eligible at every step and stratum."""
        strata = []
        for cells in self.cells:
            equal = same_budgets(grid, cells, epochs="epochs" not in self.dose.factors())
            values = cell_values(grid, outcome, cells)
            strata.append(np.where(equal & np.isfinite(values).all(axis=0), values, np.nan))
        return np.asarray(np.mean(strata, axis=0))


_WHERE = (
    Column(heading="Dose of", name="name"),
    Column(heading="Dataset", name="dataset"),
    Column(heading="Stratum", name="stratum"),
    Column(heading="Outcome", name="outcome", kind="outcome"),
)


@TABLES.register(
    "dose_response",
    formula="mean outcome by declared dose, over the replicates eligible at every dose",
    source="https://www.jstor.org/stable/2282901",
    title="Outcome by dose",
    place=2.6,
    optional=True,
    columns=(
        *_WHERE,
        Column(heading="Dose", name="dose", kind="number"),
        Column(heading="Levels", name="levels"),
        Column(heading="Mean", name="mean", kind="level"),
        Column(heading="Spread", name="sd", kind="effect"),
        Column(heading="Replicates", name="n_pairs", kind="number"),
        Column(heading="Trained", name="n_trained", kind="number"),
        Column(heading="Failures", name="n_failures", kind="number"),
    ),
)
def dose_response_table(inputs: Inputs) -> pa.Table:
    """One row a dose, in increasing order; empty where the study declares no dose."""
    spec, grid = inputs.spec, confirm_grid(inputs.spec, inputs.trials)
    rows = [
        _head(spec, ladder, outcome) | row
        for ladder in _ladders(spec, grid)
        for outcome in main_outcomes(spec, inputs.trials)
        for row in _steps(grid, ladder, outcome)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@TABLES.register(
    "dose_trends",
    formula="least-squares slope over the dose within a replicate, its mean, sign-flip interval and p; Page's L test beside "
    "it; exploratory",
    source="https://www.jstor.org/stable/2282901",
    title="Dose-response: trends",
    place=2.5,
    optional=True,
    columns=(
        *_WHERE,
        Column(heading="Doses", name="n_doses", kind="number"),
        Column(heading="Slope per unit of dose", name="estimate", kind="effect", low="ci_low", high="ci_high"),
        Column(heading="Spread", name="sd", kind="effect"),
        Column(heading="p", name="p_sign_flip", kind="p"),
        Column(heading="p (Page)", name="p_page", kind="p"),
        Column(heading="Replicates", name="n_pairs", kind="number"),
        Column(heading="Left out", name="n_excluded", kind="number"),
        Column(heading="Failures", name="n_failures", kind="number"),
        Column(heading="Label", name="label"),
    ),
)
def dose_trends_table(inputs: Inputs) -> pa.Table:
    """One row a declared dose, dataset, outcome and stratum; empty where the study declares no dose."""
    spec, grid = inputs.spec, confirm_grid(inputs.spec, inputs.trials)
    rows = [
        _head(spec, ladder, outcome) | _trend(spec, grid, ladder, outcome)
        for ladder in _ladders(spec, grid)
        for outcome in main_outcomes(spec, inputs.trials)
    ]
    return pa.Table.from_pylist(rows, schema=TRENDS_SCHEMA)


def page_p(values: Floats) -> float | None:
    """Two-sided p of Page's L: ``values`` has one row a replicate and one column a dose, in order of dose.

    Exact for small tables, else normal (scipy). ``None`` below two replicates or three doses.
    """
    if values.shape[0] < 2 or values.shape[1] < 3:
        return None
    one_sided = [float(stats.page_trend_test(v).pvalue) for v in (values, values[:, ::-1])]
    return min(1.0, 2 * min(one_sided))


def _ladders(spec: Spec, grid: ConfirmGrid) -> Iterator[Ladder]:
    """Each declared dose and dataset where every step has a cell: all strata together, then each where there are several."""
    for name, dose in spec.doses.items():
        dose = dose.model_copy(update={"steps": sorted(dose.steps, key=lambda step: step.dose)})
        found: dict[str, dict[str, dict[int, int]]] = {}
        for i, cell in enumerate(grid.cells):
            others = {f: v for f, v in cell.levels.items() if f not in dose.factors()}
            for step, asked in enumerate(dose.steps):
                if agrees(cell.levels, asked.levels):
                    found.setdefault(cell.dataset, {}).setdefault(context_label(others), {})[step] = i
        for dataset, contexts in found.items():
            strata = {
                context: [at[step] for step in range(len(dose.steps))]
                for context, at in contexts.items()
                if len(at) == len(dose.steps)
            }
            groups = {POOLED: list(strata.values())} | (
                {context: [cells] for context, cells in strata.items()} if len(strata) > 1 else {}
            )
            for stratum, cells in groups.items():
                if cells:
                    yield Ladder(name=name, dose=dose, dataset=dataset, stratum=stratum, cells=cells)


def _head(spec: Spec, ladder: Ladder, outcome: ReadOutcome) -> dict[str, Any]:
    named = {"study": spec.name, "name": ladder.name, "dataset": ladder.dataset, "stratum": ladder.stratum}
    return named | {"outcome": outcome.name, "scale": outcome.scale}


def _steps(grid: ConfirmGrid, ladder: Ladder, outcome: ReadOutcome) -> Iterator[dict[str, Any]]:
    values = ladder.values(grid, outcome)
    used = values[:, np.isfinite(values).all(axis=0)]
    for i, step in enumerate(ladder.dose.steps):
        cells = [cells[i] for cells in ladder.cells]
        mean, n = (float(used[i].mean()) if used.size else None), used.shape[1]
        yield {
            "dose": step.dose,
            "levels": " ".join(f"{name}={level}" for name, level in step.levels.items()),
            "mean": float(np.exp(mean)) if mean is not None and outcome.scale == "log ratio" else mean,
            "sd": float(used[i].std(ddof=1)) if n > 1 else None,
            "n_pairs": n,
            "n_trained": int((grid.rows[cells] >= 0).sum()),
            "n_failures": left_out(grid, cells, 0)["n_failures"],
        }


def _trend(spec: Spec, grid: ConfirmGrid, ladder: Ladder, outcome: ReadOutcome) -> dict[str, Any]:
    values = ladder.values(grid, outcome)
    x = np.array([step.dose for step in ladder.dose.steps])
    numbers = tested(weighted_sum(values, slope_weights(x.tolist())), spec.alpha)
    used = values[:, np.isfinite(values).all(axis=0)]
    by_dose = np.stack([used[x == dose].mean(axis=0) for dose in np.unique(x)])
    every = [cell for cells in ladder.cells for cell in cells]
    return {
        "n_doses": len(by_dose),
        **numbers,
        "p_page": page_p(by_dose.T),
        **left_out(grid, every, numbers["n_pairs"]),
        "label": exploratory(spec),
    }
