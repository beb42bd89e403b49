"""The paired two-sided sign-flip test on the mean, and its exact inversion to an interval.

Flipping the signs of the pairs in a set S leaves the sum at least as large as observed exactly when the sum over S is at most
zero. So with d_r - m in place of d_r the one-sided p-value of "the centre is m" against "greater" is

    (1 + #{nonempty S: mean of d over S <= m}) / 2^n.

The two-sided p is twice the smaller side, at most 1. The interval {m: p(d - m) > alpha} therefore has its limits at
order statistics of the subset means, and a limit is infinite where 2^n is too small for alpha. Assumed: differences
symmetric about their centre, independent between pairs.

Up to ``EXACT_PAIRS`` pairs all 2^n sign patterns are used. Above that, ``NUM_PATTERNS`` - 1 patterns are drawn
uniformly with replacement under a fixed seed, and the identity is counted once more, which keeps p valid (Hemerik and
Goeman, arXiv 1411.7565): equal differences always give equal numbers.
Source: https://doi.org/10.1080/01621459.1969.10501057 (Hartigan 1969, Using Subsample Values as Typical Values)
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats.sign_patterns import NUM_PATTERNS, Floats, all_subsets, sampled_subsets

EXACT_PAIRS = 16
# Sums nearer to zero than this share of the largest difference are ties: differences of accuracies lie on a lattice,
# and rounding must not break what is equal there.
_TIE = 1e-9
# Limits nearer to zero than this share of the largest difference are zero: what is left of sums that cancel.
_ROUNDING = 1e-12

# Sums and sizes of the nonempty subsets used, and how often the empty one (the identity) counts.
_Subsets = tuple[Floats, Floats, int]


def smallest_p(num_pairs: int) -> float:
    """The smallest two-sided p-value ``num_pairs`` pairs can give: 2 / 2^n, or 2 / ``NUM_PATTERNS`` where sampled."""
    return min(1.0, 2.0 / _num_patterns(num_pairs))


def sign_flip_p(differences: ArrayLike) -> float:
    """Two-sided p-value of "the differences are symmetric about zero", in (0, 1].

    Raises ``ValueError`` when ``differences`` is empty, not one-dimensional or not finite.
    """
    d = _checked(differences)
    return _p(d, _subsets(d))


def sign_flip_interval(differences: ArrayLike, alpha: float) -> tuple[float, float]:
    """The closed interval of centres m with ``sign_flip_p(d - m) > alpha``, in the unit of the differences.

    Limits are ``-inf`` and ``inf`` when ``smallest_p(n) > alpha``. Raises ``ValueError`` as ``sign_flip_p`` does, and
    for ``alpha`` outside (0, 1).
    """
    d = _checked(differences)
    return _interval(d, alpha, _subsets(d))


def sign_flip_test(differences: ArrayLike, alpha: float) -> tuple[float, tuple[float, float]]:
    """``sign_flip_p`` and ``sign_flip_interval`` at the cost of one."""
    return _tested(_checked(differences).tobytes(), alpha)


@lru_cache(maxsize=4096)
def _tested(differences: bytes, alpha: float) -> tuple[float, tuple[float, float]]:
    """Kept: a study reads the same pairs for several tables, and at each of its looks."""
    d = np.frombuffer(differences)
    subsets = _subsets(d)
    return _p(d, subsets), _interval(d, alpha, subsets)


def _p(d: Floats, subsets: _Subsets) -> float:
    sums, _, identities = subsets
    tie = _TIE * float(np.max(np.abs(d)))
    greater = identities + int(np.count_nonzero(sums <= tie))
    less = identities + int(np.count_nonzero(sums >= -tie))
    return min(1.0, 2.0 * min(greater, less) / _num_patterns(len(d)))


def _interval(d: Floats, alpha: float, subsets: _Subsets) -> tuple[float, float]:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha:g} lies outside (0, 1)")
    sums, sizes, identities = subsets
    rank = int(alpha / 2 * _num_patterns(len(d))) - identities + 1
    if rank <= 0:
        return -np.inf, np.inf
    means = sums / sizes
    ordered = np.partition(means, (rank - 1, len(means) - rank))
    zero = _ROUNDING * float(np.max(np.abs(d)))
    low, high = (float(ordered[position]) for position in (rank - 1, len(means) - rank))
    return (0.0 if abs(low) <= zero else low), (0.0 if abs(high) <= zero else high)


def _num_patterns(num_pairs: int) -> int:
    return int(2**num_pairs) if num_pairs <= EXACT_PAIRS else NUM_PATTERNS


def _checked(differences: ArrayLike) -> Floats:
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or d.size == 0:
        raise ValueError(f"needs a nonempty list of differences, got shape {d.shape}")
    if not np.isfinite(d).all():
        raise ValueError("differences must be finite; leave ineligible pairs out and count them")
    return d


def _subsets(d: Floats) -> _Subsets:
    sums, sizes = all_subsets(d) if len(d) <= EXACT_PAIRS else sampled_subsets(d)
    nonempty = sizes > 0
    identities = int(np.count_nonzero(~nonempty))
    return sums[nonempty], sizes[nonempty], identities
