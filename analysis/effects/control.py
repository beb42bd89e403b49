"""The A/A control: two names for the same code, tuned apart, must not differ by more than the margin."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.words.wording import effect_text, levels_text, size_text
from search_spaces.spec import Spec

DEFAULT_MARGIN = 0.01
_OUTCOME = "test/accuracy"


@dataclass(frozen=True, kw_only=True)
class AAResult:
    """The control's effect on test accuracy on one dataset (fractions of images), pooled over strata.

    ``inside`` is ``False`` when the interval excludes zero and the difference is at least the margin (a failed control,
    which leaves every claim undecided), ``None`` while there are no pairs.
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
    inside: bool | None

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
        effect = effect_text(_OUTCOME, "difference", self.mean_difference, self.ci_low, self.ci_high)
        margin = size_text(_OUTCOME, "difference", self.margin)
        found = f"{name}: test accuracy differs by {effect} over {self.n_pairs} pairs"
        if not self.inside:
            return f"{found}, outside the margin of {margin}: every claim is undecided."
        if not self.precise:
            return f"{found}, inside the margin of {margin}, though the interval does not exclude it."
        return f"{found}, inside the margin of {margin}."


def aa_results(spec: Spec, effects: Iterable[Mapping[str, Any]]) -> list[AAResult]:
    """The control on each dataset, from rows of the effects table; empty when the study has no control."""
    margin = accuracy_margin(spec)
    results = []
    for row in effects:
        if (row["role"], row["stratum"], row["outcome"]) != ("control", "all", _OUTCOME):
            continue
        mean, low, high = row["mean_difference"], row["ci_low"], row["ci_high"]
        inside = None if mean is None else (low <= 0 <= high) or abs(mean) < margin
        kept = {name: row[name] for name in ("dataset", "arm", "reference", "n_pairs", "n_waiting", "mean_difference")}
        results.append(AAResult(**kept, ci_low=low, ci_high=high, margin=margin, inside=inside))
    return results


def accuracy_margin(spec: Spec) -> float:
    """The largest accuracy margin a claim declares, ``DEFAULT_MARGIN`` where none does (fraction of images)."""
    margins = [o.margin for claim in spec.claims.values() for o in claim.outcomes if "/accuracy" in o.name]
    return max(margins, default=DEFAULT_MARGIN)
