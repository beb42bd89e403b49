"""https://doi.org/10.1080/01621459.1969.10501057 -- Hartigan (1969), Using Subsample Values as Typical Values.

The paired two-sided sign-flip test on the mean, and its exact inversion to an interval. Flipping the signs of the pairs
in a set S leaves the sum at least as large as observed exactly when the sum over S is at most zero, so with d_r - m in
place of d_r the one-sided p-value of "the centre is m" against "greater" is

    (1 + #{nonempty S: mean of d over S <= m}) / 2^n.

The two-sided p is twice the smaller side, at most 1. The interval {m: p(d - m) > alpha} therefore has its limits at
order statistics of the subset means, and a limit is infinite where 2^n is too small for alpha. Assumed: differences
symmetric about their centre, independent between pairs.

Up to ``EXACT_PAIRS`` pairs all 2^n sign patterns are used. Above that, ``NUM_PATTERNS`` - 1 patterns are drawn
uniformly with replacement under a fixed seed, and the identity is counted once more, which keeps p valid (Hemerik and
Goeman, https://arxiv.org/abs/1411.7565): equal differences always give equal numbers.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT_PAIRS = 16
NUM_PATTERNS = 2**16
_SEED = 1969
_CHUNK = 4096
# Sums nearer to zero than this share of the largest difference are ties: differences of accuracies lie on a lattice,
# and rounding must not break what is equal there.
_TIE = 1e-9
# Limits nearer to zero than this share of the largest difference are zero: what is left of sums that cancel.
_ROUNDING = 1e-12

Floats = NDArray[np.float64]


def smallest_p(num_pairs: int) -> float:
    """The smallest two-sided p-value ``num_pairs`` pairs can give: 2 / 2^n, or 2 / ``NUM_PATTERNS`` where sampled."""
    return min(1.0, 2.0 / _num_patterns(num_pairs))


def sign_flip_p(differences: ArrayLike) -> float:
    """Two-sided p-value of "the differences are symmetric about zero", in (0, 1].

    Raises ``ValueError`` when ``differences`` is empty, not one-dimensional or not finite.
    """
    d = _checked(differences)
    sums, _, identities = _subsets(d)
    tie = _TIE * float(np.max(np.abs(d)))
    greater = identities + int(np.count_nonzero(sums <= tie))
    less = identities + int(np.count_nonzero(sums >= -tie))
    return min(1.0, 2.0 * min(greater, less) / _num_patterns(len(d)))


def sign_flip_interval(differences: ArrayLike, alpha: float) -> tuple[float, float]:
    """The closed interval of centres m with ``sign_flip_p(d - m) > alpha``, in the unit of the differences.

    Limits are ``-inf`` and ``inf`` when ``smallest_p(n) > alpha``. Raises ``ValueError`` as ``sign_flip_p`` does, and
    for ``alpha`` outside (0, 1).
    """
    d = _checked(differences)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha:g} lies outside (0, 1)")
    sums, sizes, identities = _subsets(d)
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


def _subsets(d: Floats) -> tuple[Floats, Floats, int]:
    """Sums and sizes of the nonempty subsets used, and how often the empty one (the identity) counts."""
    sums, sizes = _all_subsets(d) if len(d) <= EXACT_PAIRS else _sampled_subsets(d)
    nonempty = sizes > 0
    identities = int(np.count_nonzero(~nonempty))
    return sums[nonempty], sizes[nonempty], identities


def _all_subsets(d: Floats) -> tuple[Floats, Floats]:
    sums, sizes = np.zeros(1), np.zeros(1)
    for value in d:
        sums, sizes = np.concatenate((sums, sums + value)), np.concatenate((sizes, sizes + 1.0))
    return sums, sizes


def _sampled_subsets(d: Floats) -> tuple[Floats, Floats]:
    chunks, sizes = _patterns(len(d))
    return np.concatenate([np.zeros(1), *(members.astype(np.float64) @ d for members in chunks)]), sizes


@lru_cache(maxsize=4)
def _patterns(num_pairs: int) -> tuple[list[NDArray[np.int8]], Floats]:
    """The subsets drawn, in chunks of rows of zeros and ones, and the sizes of the empty set and of each of them.

    The same for every call of as many pairs: drawing them takes most of a test's time.
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    drawn = NUM_PATTERNS - 1
    chunks = [
        generator.integers(0, 2, size=(min(_CHUNK, drawn - start), num_pairs), dtype=np.int8)
        for start in range(0, drawn, _CHUNK)
    ]
    return chunks, np.concatenate([np.zeros(1), *(members.sum(axis=1, dtype=np.float64) for members in chunks)])
