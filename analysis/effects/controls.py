"""What a study must show before its claims are believed: the A/A control, and assay sensitivity.

The A/A control: one thing under two names, tuned apart, must not differ in any outcome that a claim names. It ends in one of
three ways. ``inside``: the interval at 90% lies within the margin on both sides (two one-sided tests of equivalence).
``differs``: the interval at 95% excludes zero and the mean difference is the margin or more; every claim is then undecided.
``inconclusive``: anything else, which is said beside every verdict.

Assay sensitivity: a difference that is known to exist at the study's scale, which the specification declares, must be seen in
test accuracy. A study that cannot see it has shown nothing by seeing no difference elsewhere.
Source: https://doi.org/10.1007/BF01068419 (Schuirmann 1987)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.effects.compare import MAX_INELIGIBLE
from analysis.effects.image_variance import hull, images_interval
from analysis.effects.paired import cell_values
from analysis.effects.readings import POOLED
from analysis.stats.signflip import sign_flip_interval
from analysis.stats.verdicts import below
from analysis.trials.grid import NO_RECORD, ConfirmGrid, label
from analysis.trials.outcomes import ReadOutcome
from analysis.trials.records import agrees
from analysis.words.wording import effect_text, levels_text, outcome_text, size_text
from search_spaces import Levels, Spec
from search_spaces.claims import SHORTENED, Assay

AAState = Literal["inside", "differs", "inconclusive", "not run"]
_WORST_FIRST: tuple[AAState, ...] = ("differs", "not run", "inconclusive", "inside")
ACCURACY = ReadOutcome(name="test/accuracy", scale="difference")
DEFAULT_MARGIN = 0.01
_INSIDE, _DIFFERS = 0.10, 0.05


@dataclass(frozen=True, kw_only=True)
class AAResult:
    """The control on a dataset in one outcome, pooled over strata: mean difference, its intervals at 90% and 95%, and the
    smallest margin that a claim declares for the outcome. All in the outcome's unit; ``None`` without a pair.
    """

    dataset: str
    arm: str
    reference: str
    outcome: str
    scale: str
    n_pairs: int
    n_excluded: int
    n_waiting: int
    mean_difference: float | None
    at_90: tuple[float, float] | None
    at_95: tuple[float, float] | None
    margin: float

    @property
    def state(self) -> AAState:
        """How the control ended; ``not run`` while pairs are planned and not run."""
        if self.n_waiting:
            return "not run"
        started = self.n_pairs + self.n_excluded
        if self.mean_difference is None or self.at_90 is None or self.at_95 is None:
            return "inconclusive" if started else "not run"
        low, high = self.at_95
        if not low <= 0 <= high and not below(abs(self.mean_difference), self.margin):
            return "differs"
        within = below(max(-self.at_90[0], self.at_90[1]), self.margin)
        return "inside" if within and self.n_excluded <= MAX_INELIGIBLE * started else "inconclusive"

    def sentence(self) -> str:
        """The result in one sentence."""
        name = f"A/A control {levels_text(self.arm)} minus {levels_text(self.reference)} on {self.dataset}"
        if self.state == "not run":
            return f"{name}: {self.n_waiting} pairs have not run yet." if self.n_waiting else f"{name}: not run yet."
        what, margin = outcome_text(self.outcome), size_text(self.outcome, self.scale, self.margin)
        if self.mean_difference is None or self.at_90 is None or self.at_95 is None:
            return f"{name}: inconclusive, no pair of it has {what}."
        shown = self.at_95 if self.state == "differs" else self.at_90
        effect = effect_text(self.outcome, self.scale, self.mean_difference, *shown)
        found = f"{what} differs by {effect} over {self.n_pairs} pairs (margin {margin})"
        if self.n_excluded > MAX_INELIGIBLE * (self.n_pairs + self.n_excluded):
            found += f", {self.n_excluded} more pairs being ineligible"
        told = {
            "inside": f"inside: {found}",
            "differs": f"differs: {found}; every claim is undecided",
            "inconclusive": f"inconclusive: {found}; the interval lies neither within the margin nor clear of zero",
        }
        return f"{name}: {told[self.state]}."


def worst_state(control: Iterable[AAResult]) -> AAState | None:
    """How a control ended: the worst of its outcomes; ``None`` without any."""
    states = {result.state for result in control}
    return next((state for state in _WORST_FIRST if state in states), None)


def control_outcomes(spec: Spec) -> dict[str, float]:
    """What the control is read on -> its margin, the smallest that a claim declares; test accuracy without claims."""
    margins: dict[str, float] = {}
    for claim in spec.claims.values():
        for outcome in claim.outcomes:
            margins[outcome.name] = min(outcome.margin, margins.get(outcome.name, outcome.margin))
    return margins or {ACCURACY.name: DEFAULT_MARGIN}


def aa_results(
    spec: Spec, effects: Iterable[Mapping[str, Any]], pairs: Mapping[tuple[str, ...], Mapping[int, float]]
) -> list[AAResult]:
    """The control on each dataset and outcome, from rows of the effects table and the differences behind them.

    ``pairs`` maps (arm, reference, dataset, stratum, outcome) to differences by replicate. Empty without a control.
    """
    if spec.control is None:
        return []
    margins, results = control_outcomes(spec), []
    who = label(spec.control.arm), label(spec.control.reference)
    seen: set[tuple[str, ...]] = set()
    for row in effects:
        key = (row["arm"], row["reference"], row["dataset"], row["stratum"], row["outcome"])
        if key[:2] != who or row["stratum"] != POOLED or row["outcome"] not in margins or key in seen:
            continue
        seen.add(key)
        differences = list(pairs.get(key, {}).values())
        results.append(
            AAResult(
                **{name: row[name] for name in ("dataset", "arm", "reference", "outcome", "scale")},
                **{name: row[name] for name in ("n_pairs", "n_excluded", "n_waiting", "mean_difference")},
                at_90=_hull(row, differences, _INSIDE),
                at_95=_hull(row, differences, _DIFFERS),
                margin=margins[row["outcome"]],
            )
        )
    return results


def _hull(row: Mapping[str, Any], differences: Sequence[float], level: float) -> tuple[float, float] | None:
    return hull(sign_flip_interval(differences, level), images_interval(row, level)) if differences else None


@dataclass(frozen=True, kw_only=True)
class AssayResult:
    """Whether a declared difference is seen in test accuracy on a dataset; limits at the study's alpha."""

    dataset: str
    arm: str
    reference: str
    n_pairs: int
    n_waiting: int
    mean_difference: float | None
    ci_low: float | None
    ci_high: float | None

    @property
    def seen(self) -> bool | None:
        """Whether the interval lies above zero; ``None`` while pairs are not run."""
        return None if self.n_waiting else self.ci_low is not None and self.ci_low > 0

    def sentence(self) -> str:
        """The result in one sentence."""
        name = f"Assay sensitivity on {self.dataset}, {levels_text(self.arm)} minus {levels_text(self.reference)}"
        if self.seen is None:
            return f"{name}: {self.n_waiting} pairs have not run yet."
        found = (
            effect_text(ACCURACY.name, ACCURACY.scale, self.mean_difference, self.ci_low, self.ci_high) or "no pairs"
        )
        if self.seen:
            return f"{name}: {found}, so a known difference is seen."
        return f"{name}: {found}; a known difference is not seen, and every claim is undecided."


def assay_results(assay: Assay, arm: ConfirmGrid, reference: ConfirmGrid) -> list[AssayResult]:
    """One result per dataset that has cells on both sides, averaged over all levels that the assay does not name.

    ``arm`` and ``reference`` are the grids of the shares of the epochs that the two sides train for.
    """
    spec, results = arm.spec, []
    sides = [_cells(grid, assay.side(levels)) for grid, levels in ((arm, assay.arm), (reference, assay.reference))]
    for dataset in sides[0]:
        ours, theirs = (side.get(dataset, {}) for side in sides)
        contexts = [context for context in ours if context in theirs]
        if not contexts:
            continue
        a, began_a = _per_replicate(arm, [ours[context] for context in contexts])
        b, began_b = _per_replicate(reference, [theirs[context] for context in contexts])
        pairs = sorted(a.keys() & b.keys())
        d = np.array([a[pair] - b[pair] for pair in pairs])
        low, high = sign_flip_interval(d, spec.alpha) if len(d) else (None, None)
        results.append(
            AssayResult(
                dataset=dataset,
                arm=_name(assay.arm),
                reference=_name(assay.reference),
                n_pairs=len(d),
                n_waiting=max(spec.blocks * spec.replicates - len(began_a & began_b), 0),
                mean_difference=float(d.mean()) if len(d) else None,
                ci_low=low,
                ci_high=high,
            )
        )
    return results


def _cells(grid: ConfirmGrid, side: Levels) -> dict[str, dict[tuple[Any, ...], int]]:
    """Dataset -> the levels of the other factors -> the cell there, by position in the grid."""
    others = [name for name in grid.spec.factor_names() if name not in side]
    found: dict[str, dict[tuple[Any, ...], int]] = {}
    for i, cell in enumerate(grid.cells):
        if agrees(cell.levels, side):
            found.setdefault(cell.dataset, {})[tuple(cell.levels.get(name) for name in others)] = i
    return found


def _per_replicate(grid: ConfirmGrid, cells: list[int]) -> tuple[dict[tuple[int, ...], float], set[tuple[int, ...]]]:
    """(block, replicate) -> mean test accuracy over ``cells``, where all have one; and those that have begun in all."""
    values = cell_values(grid, ACCURACY, cells).mean(axis=0)
    began = (grid.rows[cells] != NO_RECORD).all(axis=0)
    names = [tuple(pair) for pair in grid.pairs.tolist()]
    found = {pair: float(value) for pair, value in zip(names, values, strict=True) if np.isfinite(value)}
    return found, {pair for pair, there in zip(names, began, strict=True) if there}


def _name(levels: Levels) -> str:
    """``merge=add shortened=25%``."""
    share: Levels = {SHORTENED: f"{float(levels[SHORTENED]):.0%}"} if SHORTENED in levels else {}
    return label(levels | share)
