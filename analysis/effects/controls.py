"""What a study must show before its claims are believed: the A/A control, and assay sensitivity.

The A/A control: two names for the same code, tuned apart, must not differ by more than the margin. Assay sensitivity: a
difference known to exist must be seen, that of a network without skips (``none``), which loses at depth. A study that cannot
see it has shown nothing by seeing no difference elsewhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from analysis.effects.compare import compare, failure_counts
from analysis.effects.readings import POOLED, readings
from analysis.trials.grid import ConfirmGrid, Stratum, strata_of
from analysis.trials.outcomes import ReadOutcome
from analysis.words.wording import effect_text, levels_text, size_text
from search_spaces import Contrast, Spec

_KNOWN = Contrast(arm={"merge": "add"}, reference={"merge": "none"})
_ACCURACY = ReadOutcome(name="test/accuracy", scale="difference")
DEFAULT_MARGIN = 0.01


@dataclass(frozen=True, kw_only=True)
class AAResult:
    """The control's effect on test accuracy on one dataset (fractions of images), pooled over strata.

    A control that is not ``inside`` has failed, which leaves every claim undecided.
    """

    dataset: str
    arm: str
    reference: str
    n_pairs: int
    n_waiting: int
    mean_difference: float | None
    ci_low: float | None
    ci_high: float | None
    margin: float

    @property
    def inside(self) -> bool | None:
        """Whether the interval holds zero or the difference is below the margin; ``None`` while there are no pairs."""
        if self.mean_difference is None or self.ci_low is None or self.ci_high is None:
            return None
        return self.ci_low <= 0 <= self.ci_high or abs(self.mean_difference) < self.margin

    @property
    def precise(self) -> bool:
        """Whether the interval also excludes every difference as large as the margin."""
        if self.ci_low is None or self.ci_high is None:
            return False
        return -self.margin < self.ci_low and self.ci_high < self.margin

    def sentence(self) -> str:
        """The result in one sentence."""
        name = f"A/A control {levels_text(self.arm)} minus {levels_text(self.reference)} on {self.dataset}"
        if self.inside is None:
            return f"{name}: no completed pairs yet."
        effect = effect_text(_ACCURACY.name, _ACCURACY.scale, self.mean_difference, self.ci_low, self.ci_high)
        margin = size_text(_ACCURACY.name, _ACCURACY.scale, self.margin)
        found = f"{name}: test accuracy differs by {effect} over {self.n_pairs} pairs"
        if not self.inside:
            return f"{found}, outside the margin of {margin}: every claim is undecided."
        if not self.precise:
            return f"{found}, inside the margin of {margin}, though the interval does not exclude it."
        return f"{found}, inside the margin of {margin}."


def aa_results(spec: Spec, effects: Iterable[Mapping[str, Any]]) -> list[AAResult]:
    """The control on each dataset, from rows of the effects table; empty when the study has no control."""
    names = [field.name for field in fields(AAResult) if field.name != "margin"]
    return [
        AAResult(**{name: row[name] for name in names}, margin=accuracy_margin(spec))
        for row in effects
        if (row["role"], row["stratum"], row["outcome"]) == ("control", POOLED, _ACCURACY.name)
    ]


def accuracy_margin(spec: Spec) -> float:
    """The largest accuracy margin a claim declares, ``DEFAULT_MARGIN`` where none does (fraction of images)."""
    margins = [o.margin for claim in spec.claims.values() for o in claim.outcomes if "/accuracy" in o.name]
    return max(margins, default=DEFAULT_MARGIN)


@dataclass(frozen=True, kw_only=True)
class AssayResult:
    """Whether ``add`` is seen to beat ``none`` on a dataset at the greatest depth; ``None`` while its pairs are not run."""

    dataset: str
    where: str
    seen: bool | None
    found: str

    def sentence(self) -> str:
        """The result in one sentence."""
        name = f"Assay sensitivity, merge add minus none on {self.dataset} ({self.where})"
        if self.seen is None:
            return f"{name}: not run yet."
        if self.seen:
            return f"{name}: {self.found}, so a known difference is seen."
        return f"{name}: {self.found}; a known difference is not seen, and every claim is undecided."


def assay_results(grid: ConfirmGrid, chance: Mapping[str, float] | None = None) -> list[AssayResult]:
    """One result per dataset on which the study has cells without skips beside their additive twins; else none.

    The difference is seen if its interval at ``spec.alpha`` lies above zero, or if networks without skips fail more often
    (exact McNemar).
    """
    deepest = {dataset: stratum.label for dataset, stratum in deepest_strata(grid).items()}
    results = []
    for reading in readings(grid, [_KNOWN] if deepest else [], [_ACCURACY]):
        if deepest.get(reading.dataset) != reading.stratum:
            continue
        row = compare(reading, grid.spec.alpha, (chance or {}).get(reading.dataset))
        low, p = row["ci_low"], row["mcnemar_p"]
        (fails_arm, _), (fails, _) = (failure_counts(row, side) for side in ("arm", "reference"))
        num = int(reading.reference.present.sum())
        by_mean = row["mean_verdict"] and low is not None and low > 0
        by_failures = p is not None and p <= grid.spec.alpha and fails > fails_arm
        found = effect_text(_ACCURACY.name, _ACCURACY.scale, row["mean_difference"], low, row["ci_high"])
        if fails or fails_arm:
            found = f"without skips {fails} of {num} trainings fail, with them {fails_arm}"
        seen = None if row["n_waiting"] else bool(by_mean or by_failures)
        where = reading.stratum.replace("=", " ")
        results.append(AssayResult(dataset=reading.dataset, where=where, seen=seen, found=found or "no pairs"))
    return results


def deepest_strata(grid: ConfirmGrid) -> dict[str, Stratum]:
    """Dataset -> where the known difference must be seen: the cells without skips at the greatest depth, and their twins."""
    if "merge" not in grid.spec.factor_names():
        return {}

    def depth(stratum: Stratum) -> float:
        level = grid.cells[stratum.arm].levels.get("depth")
        level = grid.spec.fixed.get("depth", 0) if level is None else level
        return float(level) if isinstance(level, int | float) else 0.0

    found = strata_of(grid, _KNOWN)
    return {dataset: max(strata, key=lambda s: (depth(s), s.label)) for dataset, strata in found.items() if strata}
