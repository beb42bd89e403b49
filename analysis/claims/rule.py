"""How claims are tested: once, at Holm's levels; or interim look by interim look, at Bonferroni's, with repeated intervals.

These are the levels of support. Refutation is tested at alpha over the number of claims in either case.

Holm's procedure needs the p-values of all claims at one time. Claims that are decided at different looks have
none, so each then keeps alpha over the number of claims throughout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.stats.holm import holm_levels
from analysis.stats.sequential import repeated_interval, spent
from analysis.stats.signflip import sign_flip_interval
from search_spaces.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``looks``: blocks at each look taken so far, none where the one test is at the end; ``last``: at the last look."""

    alpha: float
    num_claims: int
    looks: tuple[int, ...]
    last: int

    def levels(self, claims: Mapping[str, float | None]) -> dict[str, float]:
        """Claim -> the level at which it is supported, from the p-value of each claim."""
        return dict.fromkeys(claims, self.level_refute) if self.looks else holm_levels(claims, self.alpha)

    @property
    def level_refute(self) -> float:
        """The level at which a claim is refuted, to be shared by its comparisons."""
        return self.alpha / self.num_claims

    def interval(self, values: Sequence[float], blocks: Sequence[int], level: float) -> tuple[float, float]:
        """The interval of the centre of ``values``, one per block of ``blocks`` (ascending)."""
        if not self.looks:
            return sign_flip_interval(values, level)
        counts = [sum(block < num for block in blocks) for num in self.looks]
        return repeated_interval(values, counts, [num / self.last for num in self.looks], level)

    def level_by_now(self, level: float) -> float:
        """The part of ``level`` spent by the present look: what a single test now would hold."""
        return spent(self.looks[-1] / self.last, level) if self.looks else level


def rule_of(spec: Spec, num_looks: int = 0) -> Rule:
    """The rule of a study; of a sequential one, at the look with this number, counted from 1."""
    looks = tuple(spec.looks[:num_looks])
    return Rule(alpha=spec.alpha, num_claims=len(spec.all_claims), looks=looks, last=spec.looks[-1])
