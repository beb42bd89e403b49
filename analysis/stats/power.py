"""How many pairs a planned comparison needs, and what it can see: the sign-flip test on normal differences.

The interval moves with the data, so for differences z + effect the test rejects upwards exactly when the effect
exceeds minus the lower limit computed from z: the smallest detectable effect is one quantile of simulated lower limits
(fixed seed). Above ``_SIMULATED_PAIRS`` pairs the noncentral t distribution stands in for the simulation; a test
compares both.

What a sequential study is expected to cost is simulated too: one comparison with normal differences and a margin of 1 is run
through the interim looks many times, under a fixed seed. It is decided at the first look at which zero (upwards) or the margin
(downwards) lies outside the repeated interval.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from analysis.stats.sequential import first_rejections
from analysis.stats.sign_patterns import Floats
from analysis.stats.signflip import smallest_p

_SIMULATED_PAIRS = 12
_NUM_DRAWS = 4000
_MOST_PAIRS = 100_000
_NUM_STUDIES = 1000
# 512 patterns a study: fewer than in use, at the same level.
_EXACT = 10
_SEED = 24


def smallest_detectable(num_pairs: int, alpha: float, sd: float, power: float = 0.8) -> float:
    """The smallest mean difference found, in its true direction, with probability ``power`` at two-sided ``alpha``.

    ``sd`` is the standard deviation of a pair's difference; the result is in its unit, and ``inf`` when ``num_pairs``
    pairs cannot reach ``alpha`` at all. Raises ``ValueError`` for impossible arguments.
    """
    _check(alpha, power)
    if num_pairs < 1 or not (math.isfinite(sd) and sd >= 0):
        raise ValueError(f"needs num_pairs >= 1 and a finite sd >= 0, got num_pairs={num_pairs}, sd={sd:g}")
    if smallest_p(num_pairs) > alpha:
        return math.inf
    if num_pairs <= _SIMULATED_PAIRS:
        return sd * _simulated(num_pairs, alpha, power)
    return sd * _noncentral_t(num_pairs - 1, alpha, power) / math.sqrt(num_pairs)


def smallest_detectable_t(standard_error: float, degrees: float, alpha: float, power: float = 0.8) -> float:
    """The same for a t interval of ``degrees`` of freedom, in the unit of ``standard_error``.

    Raises ``ValueError`` for impossible arguments.
    """
    _check(alpha, power)
    if not (degrees > 0 and math.isfinite(standard_error) and standard_error >= 0):
        raise ValueError(f"needs degrees > 0 and a finite standard error >= 0, got {degrees:g} and {standard_error:g}")
    return standard_error * _noncentral_t(degrees, alpha, power)


def pairs_needed(effect: float, sd: float, alpha: float, power: float = 0.8) -> int:
    """The fewest pairs that find a mean difference ``effect`` (same unit as ``sd``) with probability ``power``.

    Raises ``ValueError`` for an effect of zero, or one so small that more than 100,000 pairs would be needed.
    """
    if not (math.isfinite(effect) and effect != 0):
        raise ValueError(f"needs a finite effect other than zero, got {effect:g}")

    def found(num_pairs: int) -> bool:
        return smallest_detectable(num_pairs, alpha, sd, power) <= abs(effect)

    def found_by_t(num_pairs: int) -> bool:
        return sd * _noncentral_t(num_pairs - 1, alpha, power) / math.sqrt(num_pairs) <= abs(effect)

    if not found_by_t(_MOST_PAIRS):
        raise ValueError(f"an effect of {effect:g} at sd {sd:g} needs more than {_MOST_PAIRS:,} pairs")
    # sign flips need no fewer pairs than t, but for the draw: so few simulations are made as can be
    by_t = bisect_left(range(_MOST_PAIRS), True, lo=2, key=found_by_t)
    # the simulated part need not fall from one number of pairs to the next, the rest does
    for num_pairs in range(by_t - 1, _SIMULATED_PAIRS + 1):
        if found(num_pairs):
            return num_pairs
    return bisect_left(range(_MOST_PAIRS), True, lo=_SIMULATED_PAIRS + 1, key=found)


def pairs_for_verdict(alpha: float, num_claims: int, num_against: int = 2) -> int:
    """The fewest pairs whose sign-flip p reaches ``alpha / num_claims`` though ``num_against`` small pairs point away.

    With k pairs against, together smaller than any one of the others, p is 2 * 2^k / 2^n. The default of two gives ten
    pairs at alpha .05 and four claims; eight pairs pass there only when every pair agrees.
    """
    _check(alpha, 0.5)
    if num_claims < 1 or num_against < 0:
        raise ValueError(f"needs num_claims >= 1 and num_against >= 0, got {num_claims} and {num_against}")
    return num_against + 1 + math.ceil(math.log2(num_claims / alpha))


def _check(alpha: float, power: float) -> None:
    if not (0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"needs alpha and power inside (0, 1), got alpha={alpha:g}, power={power:g}")


@lru_cache(maxsize=256)
def _simulated(num_pairs: int, alpha: float, power: float) -> float:
    draws = np.random.Generator(np.random.PCG64(num_pairs)).standard_normal((_NUM_DRAWS, num_pairs))
    # the lower limits of ``sign_flip_interval``, of many draws at once: order statistics of the means over all subsets
    members = (np.arange(1, 2**num_pairs)[:, None] >> np.arange(num_pairs)) & 1
    shares, rank = (members / members.sum(axis=1, keepdims=True)).T, int(alpha / 2 * 2**num_pairs) - 1
    parts = np.array_split(draws, 16)
    lower = np.concatenate([np.partition(part @ shares, rank, axis=1)[:, rank] for part in parts])
    return float(np.quantile(-lower, power))


@lru_cache(maxsize=1024)
def _noncentral_t(degrees: float, alpha: float, power: float) -> float:
    """In standard errors."""
    critical = float(stats.t.ppf(1 - alpha / 2, degrees))

    def shortfall(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, degrees, noncentrality)) - power

    return float(optimize.brentq(shortfall, -10.0, 60.0))


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Means over simulated studies: blocks run, and the shares that end ``supported`` and ``refuted``."""

    blocks: float
    supported: float
    refuted: float


def expected_blocks(looks: Sequence[int], level: float, effect: float, spread: float) -> Expected:
    """Of a comparison whose differences have mean ``effect`` and standard deviation ``spread``, in margins.

    ``level`` is the claim's. Cost: a tenth of a second.
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    d = effect + spread * generator.standard_normal((_NUM_STUDIES, looks[-1]))
    above = _first(d, looks, level, upwards=True)
    below = _first(d - 1.0, looks, level, upwards=False)
    ended = np.minimum(np.minimum(above, below), len(looks) - 1)
    refuted = below < len(looks)
    return Expected(
        blocks=float(np.mean(np.asarray(looks)[ended])),
        supported=float(np.mean((above < len(looks)) & (above < below))),
        refuted=float(np.mean(refuted & (below <= above))),
    )


def _first(d: Floats, looks: Sequence[int], level: float, *, upwards: bool) -> NDArray[np.int64]:
    """The look at which zero is first rejected in one direction; ``len(looks)`` for never."""
    found = first_rejections(d, looks, level, exact=_EXACT)
    sums = np.stack([d[:, :n].sum(axis=1) for n in looks] + [np.zeros(len(d))])[found, np.arange(len(d))]
    return np.where((sums > 0) == upwards, found, len(looks))
