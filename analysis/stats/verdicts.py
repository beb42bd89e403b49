"""The verdict rule: from limits and a margin to supported, refuted or undecided. Numbers only; words are made elsewhere.

All limits are positive in the claim's direction. Two levels are in use. Support is tested at Holm's level: L and U are the
limits there. Refutation is tested at a fixed level, alpha / (m k) for m claims of which this one has k comparisons: R is the
upper limit there. (Holm's levels for both would let more than alpha of all studies have a false verdict.) One comparison is
``supported`` if L > 0 and U >= margin, ``refuted`` if R < margin, else ``undecided``. A claim of k comparisons (several
references, several outcomes) is an intersection-union test: supported if all of them hold, refuted if any one is refuted. A
family of A arms is supported if any arm holds in all its comparisons, L and U being at Holm's level / A, and refuted if every
arm has a comparison that is; R has no price for A, since all arms must fall. A claim on a level is one comparison whose margin
is at most zero (``analysis.claims.part``).
Source: https://doi.org/10.1080/00401706.1982.10487790 (Berger 1982)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "refuted", "undecided", "no verdict"]

# Limits lie on a lattice of accuracies; a limit that is the margin but for rounding is not below it.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """One comparison in the claim's direction: the interval at the level of support, the upper limit at that of refutation.

    ``barred`` says that it must not support the claim, though it may refute it.
    """

    low: float
    high: float
    high_refute: float
    margin: float
    barred: bool = False

    @property
    def holds(self) -> bool:
        """Whether the interval supports the claim, barred or not."""
        return self.low > 0 and not below(self.high, self.margin)


def oriented(low: float, high: float, better: str, zero: float = 0.0) -> tuple[float, float]:
    """Limits of an outcome less ``zero``, turned round for a claim that says lower. Never a negative zero.

    ``zero`` is 0 for a difference of two arms, and the limit that supports a claim on a level. Applied twice for a claim that
    says lower, it gives back the limits.
    """
    return (low - zero, high - zero) if better == "higher" else (zero - high, zero - low)


def comparison_verdict(limits: Limits) -> Verdict:
    """The verdict of one of a claim's comparisons. Raises ``ValueError`` for limits that are no interval."""
    if math.isnan(limits.low) or math.isnan(limits.high) or limits.low > limits.high:
        raise ValueError(f"no interval: [{limits.low:g}, {limits.high:g}]")
    if below(limits.high_refute, limits.margin):
        return "refuted"
    return "supported" if limits.holds and not limits.barred else "undecided"


def claim_verdict(arms: Sequence[Sequence[Limits | None]], *, num_blocks: int, held_back: bool = False) -> Verdict:
    """The verdict of a claim from the comparisons of each of its arms.

    ``None`` stands for a comparison that allows no verdict: it can neither hold nor refute. ``held_back`` says that the study
    cannot be believed (A/A control, assay sensitivity), which leaves every claim undecided. With one search block an effect
    holds at the hyperparameters found, and there is no verdict at all.
    """
    if num_blocks == 1:
        return "no verdict"
    if held_back:
        return "undecided"
    verdicts = [[comparison_verdict(limits) if limits else "undecided" for limits in parts] for parts in arms]
    if any(parts and set(parts) == {"supported"} for parts in verdicts):
        return "supported"
    return "refuted" if verdicts and all("refuted" in parts for parts in verdicts) else "undecided"


def below(x: float, y: float) -> bool:
    """Whether ``x`` lies below ``y`` by more than rounding."""
    return x < y - _ROUNDING * abs(y)
