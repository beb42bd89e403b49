"""Assay sensitivity: a difference known to exist must be seen. A network without skips (``none``) loses at depth.

A study that cannot see it has shown nothing by seeing no difference elsewhere, so every claim stays undecided.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.effects.compare import compare, failure_counts
from analysis.effects.readings import readings
from analysis.trials.grid import ConfirmGrid, Stratum, strata_of
from analysis.trials.outcomes import ReadOutcome
from analysis.words.wording import effect_text
from search_spaces import Contrast

_KNOWN = Contrast(arm={"merge": "add"}, reference={"merge": "none"})
_OUTCOME = ReadOutcome(name="test/accuracy", scale="difference", is_estimate=False)


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
    for reading in readings(grid, [_KNOWN] if deepest else [], [_OUTCOME]):
        if deepest.get(reading.dataset) != reading.stratum:
            continue
        row = compare(reading, grid.spec.alpha, (chance or {}).get(reading.dataset))
        low, p = row["ci_low"], row["mcnemar_p"]
        (fails_arm, _), (fails, _) = (failure_counts(row, side) for side in ("arm", "reference"))
        num = int(reading.reference.present.sum())
        by_mean = row["mean_verdict"] and low is not None and low > 0
        by_failures = p is not None and p <= grid.spec.alpha and fails > fails_arm
        found = effect_text(_OUTCOME.name, _OUTCOME.scale, row["mean_difference"], low, row["ci_high"])
        if fails or fails_arm:
            found = f"without skips {fails} of {num} trainings fail, with them {fails_arm}"
        seen = None if row["n_waiting"] else bool(by_mean or by_failures)
        where = reading.stratum.replace("=", " ")
        results.append(AssayResult(dataset=reading.dataset, where=where, seen=seen, found=found or "no pairs"))
    return results


def deepest_strata(grid: ConfirmGrid) -> dict[str, Stratum]:
    """Dataset -> where the known difference is looked for: the cells without skips at the greatest depth, and their twins."""
    if "merge" not in grid.spec.factor_names():
        return {}

    def depth(stratum: Stratum) -> float:
        level = grid.cells[stratum.arm].levels.get("depth")
        level = grid.spec.fixed.get("depth", 0) if level is None else level
        return float(level) if isinstance(level, int | float) else 0.0

    found = strata_of(grid, _KNOWN)
    return {dataset: max(strata, key=lambda s: (depth(s), s.label)) for dataset, strata in found.items() if strata}
