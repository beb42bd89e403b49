"""Repeated intervals of a sequential study: group-sequential boundaries from the joint sign-flip distribution.

A claim is judged after n_1 < n_2 < ... < n_K pairs (interim looks), and the level ``alpha`` is spent little by little: by
look n at most alpha * ln(1 + (e - 1) n / n_K), a boundary of Pocock's kind (Lan and DeMets 1983). Of all sign patterns, those
whose absolute sum at a look is largest are rejected there, as many as the spending allows, and are out of the later looks.
What discreteness leaves unspent at one look is there for the next.

The repeated interval (Jennison and Turnbull 1989) holds all centres m that the look's own boundary, worked out anew for
d - m, does not reject. The intervals of all looks hold the centre together with probability 1 - alpha, so any rule for
stopping may be used.

By symmetry the first sign is kept at +1. The signs of the first ``EXACT_PAIRS`` pairs are enumerated; later pairs continue
each of these patterns by fixed random signs (the identity, row 0, by +1). Under symmetry the observed signs are as likely to
be any row as any other, so the level holds exactly: in the looks up to ``EXACT_PAIRS`` pairs by enumeration, later over the
draw of the continuations. With one look and as many pairs at most this is ``analysis.stats.signflip``.
Source: https://doi.org/10.1093/biomet/70.3.659, https://doi.org/10.1111/j.2517-6161.1989.tb01433.x
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.sign_patterns import Floats
from analysis.stats.signflip import sign_flip_interval

EXACT_PAIRS = 16
_SEED = 1983
# Sums nearer to each other than this share of the largest difference are ties.
_TIE = 1e-9
# Limits are found to this share of the largest distance from the mean, and given on their outer side.
_PRECISION = 1e-7
# Rounding that a bound on sums leaves room for.
_SLACK = 1e-6
_STEPS = 8
# Sums held in memory at once by ``first_rejections``.
_AT_ONCE = 2**20


def spent(share: float, alpha: float) -> float:
    """The part of ``alpha`` that may be spent by the time ``share`` (0 to 1) of the last look's pairs are there."""
    return alpha * math.log(1 + (math.e - 1) * share)


@lru_cache(maxsize=8)
def sign_patterns(num_pairs: int, exact: int = EXACT_PAIRS) -> NDArray[np.int8]:
    """Signs, one pattern per row, shape (2^(min(num_pairs, exact) - 1), num_pairs); row 0 is the identity. Read-only."""
    whole = min(num_pairs, exact)
    rows = np.arange(2 ** (whole - 1))
    bits = (rows[:, None] >> np.arange(whole - 1)) & 1
    signs = np.ones((len(rows), num_pairs), dtype=np.int8)
    signs[:, 1:whole] = 1 - 2 * bits
    generator = np.random.Generator(np.random.PCG64(_SEED))
    signs[1:, whole:] = 1 - 2 * generator.integers(0, 2, size=(len(rows) - 1, num_pairs - whole), dtype=np.int8)
    signs.setflags(write=False)
    return signs


def repeated_interval(
    differences: ArrayLike, counts: Sequence[int], shares: Sequence[float], alpha: float
) -> tuple[float, float]:
    """The repeated interval at the last of the looks taken so far, in the unit of the differences.

    ``counts`` says how many of the differences, in order of the pairs, there were at each look (those of ineligible pairs
    are missing); ``shares`` the share of the last look's planned pairs. Limits are infinite where so few pairs cannot
    reach what may be spent. Raises ``ValueError`` for differences that are not finite, and for looks that do not fit
    together.
    """
    d = np.asarray(differences, dtype=np.float64)
    _check(d, counts, shares, alpha)
    levels = [spent(share, alpha) for share in shares]
    inner = sign_flip_interval(d, levels[-1])
    if len(levels) == 1 or math.isinf(inner[0]):
        return inner
    outer = sign_flip_interval(d, levels[-1] - levels[-2])
    of_ones = [_floats(len(d), n) for n in counts]
    sums = [(signs @ d[:n], of_one) for n, (signs, of_one) in zip(counts, of_ones, strict=True)]
    most = [int(level * len(sums[0][0]) + 1e-9) for level in levels]
    scale, mean = float(np.max(np.abs(d))), float(d.mean())

    def between(ends: tuple[float, float]) -> Callable[[float], bool]:
        kept = _needed(sums, most, *ends)
        held = [(of_d[kept], of_one[kept]) for of_d, of_one in sums]

        def rejected(m: float) -> bool:
            return _crosses([np.abs(of_d - m * of_one) for of_d, of_one in held], most, _TIE * max(scale, abs(m)))

        return rejected

    farthest = 4 * len(d) * (float(np.max(np.abs(d - mean))) + _TIE * scale)
    limits = [_limit(between, *ends, mean, farthest) for ends in zip(outer, inner, strict=True)]
    low, high = (0.0 if abs(limit) <= _TIE * scale else limit for limit in limits)
    return low, high


@lru_cache(maxsize=8)
def _floats(num_pairs: int, num: int) -> tuple[Floats, Floats]:
    """The signs of the first ``num`` pairs as numbers, and their sums by pattern. Read-only."""
    signs = sign_patterns(num_pairs)[:, :num]
    found = signs.astype(np.float64), signs.sum(axis=1, dtype=np.float64)
    for each in found:
        each.setflags(write=False)
    return found


def _needed(sums: Sequence[tuple[Floats, Floats]], most: Sequence[int], start: float, end: float) -> NDArray[np.int64]:
    """The patterns that can be at or above a look's boundary for any centre from ``start`` to ``end``, the identity first.

    A pattern's absolute sum is convex in the centre, so it is largest at an end. Whatever is below the largest ``most`` + 1
    there throughout decides nothing, at this look or a later one.
    """
    wanted = np.zeros(len(sums[0][0]), dtype=np.bool_)
    wanted[0] = True
    for (of_d, of_one), num in zip(sums, most, strict=True):
        low, high = of_d - start * of_one, of_d - end * of_one
        least = np.where(low * high > 0, np.minimum(np.abs(low), np.abs(high)), 0.0)
        sure = np.partition(least, len(least) - num - 1)[len(least) - num - 1]
        wanted |= np.maximum(np.abs(low), np.abs(high)) >= sure * (1 - _SLACK)
    return np.flatnonzero(wanted)


def first_rejections(
    differences: ArrayLike, looks: Sequence[int], alpha: float, *, exact: int = EXACT_PAIRS
) -> NDArray[np.int64]:
    """For many studies at once, the look (0 for the first) at which the centre 0 is first rejected; ``len(looks)`` if never.

    ``differences`` has shape (studies, pairs). Cost: 2^(exact - 1) sums a study and look; ``exact`` below the default
    trades steps of the spending for speed, the level holds all the same. Which way it is rejected is the sign of the sum.
    """
    d = np.asarray(differences, dtype=np.float32)
    signs = sign_patterns(d.shape[1], exact).astype(np.float32)
    most = [int(spent(n / looks[-1], alpha) * len(signs) + 1e-9) for n in looks]
    found = np.full(len(d), len(looks), dtype=np.int64)
    step = max(1, _AT_ONCE // len(signs))
    for start in range(0, len(d), step):
        part, at = d[start : start + step], found[start : start + step]
        tie = 1e-5 * np.max(np.abs(part), axis=1, keepdims=True)  # float32
        sums = (np.abs(part[:, :n] @ signs[:, :n].T) for n in looks)
        for look, (left, boundary) in enumerate(_boundaries(sums, most, tie)):
            at[(left[:, 0] > boundary[:, 0] + tie[:, 0]) & (at == len(looks))] = look
    return found


def _boundaries(
    sums: Iterable[NDArray[Any]], most: Sequence[int], tie: NDArray[Any]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Look by look the sums that were not rejected before (-1 for the others), and the boundary: (studies, 1).

    ``sums`` has absolute sums per look, (studies, patterns); ``most`` says how many may be spent by then. A look's boundary is
    the largest sum that may not be spent.
    """
    taken: NDArray[Any] = np.zeros(1, dtype=np.int64)
    gone: NDArray[Any] = np.zeros(1, dtype=np.bool_)
    for look, by_now in zip(sums, most, strict=True):
        left = np.array(look)
        np.copyto(left, -1.0, where=gone)
        first = left.shape[1] - by_now - 1
        largest = np.sort(np.partition(left, first, axis=1)[:, first:])
        boundary = np.take_along_axis(largest, np.broadcast_to(taken[:, None], (len(left), 1)), axis=1)
        yield left, boundary
        new = left > boundary + tie
        taken = taken + np.count_nonzero(new, axis=1)
        gone = gone | new


def _crosses(sums: Sequence[Floats], most: Sequence[int], tie: float) -> bool:
    """Whether the identity, pattern 0, lies beyond the last look's boundary, given absolute sums per look."""
    *_, (_, boundary) = _boundaries((look[None] for look in sums), most, np.full((1, 1), tie))
    return bool(sums[-1][0] > boundary[0, 0] + tie)


def _limit(
    between: Callable[[tuple[float, float]], Callable[[float], bool]],
    outer: float,
    inner: float,
    mean: float,
    farthest: float,
) -> float:
    """The centre farthest from the mean that is kept, on one side of it; given on the rejected side.

    One look that spends the same total keeps nothing that is not kept here, and one that spends this look's own share keeps
    all that is: ``inner`` and ``outer``, their limits, bracket the one looked for, but for the draw of the continuations.
    ``between`` gives what says of a centre between two others whether it is rejected.
    """
    if outer == inner:
        return outer
    side = -1.0 if inner < mean else 1.0
    near, far = abs(inner - mean), min(abs(outer - mean), farthest)
    while not between((mean + side * far, mean + side * far))(mean + side * far):
        far *= 2
        if far > 4 * farthest:
            return side * math.inf
    # the set need not be an interval: the first centre kept on the way in counts, at the latest the mean itself
    beyond, within = far, 0.0
    rejected = between((mean + side * far, mean + side * near))
    for distance in np.linspace(far, near, _STEPS + 1)[1:].tolist():
        if not rejected(mean + side * distance):
            within = distance
            break
        beyond = distance
    rejected = between((mean + side * beyond, mean + side * within))
    while beyond - within > _PRECISION * beyond:
        middle = (beyond + within) / 2
        if rejected(mean + side * middle):
            beyond = middle
        else:
            within = middle
    return mean + side * beyond


def _check(d: Floats, counts: Sequence[int], shares: Sequence[float], alpha: float) -> None:
    if d.ndim != 1 or d.size == 0 or not np.isfinite(d).all():
        raise ValueError("needs a nonempty list of finite differences; leave ineligible pairs out and count them")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha:g} lies outside (0, 1)")
    rising = all(a <= b for a, b in pairwise(counts))
    fits = len(counts) == len(shares) > 0 and counts[-1] == len(d) and rising
    if not fits or any(not 0 < a <= 1 for a in shares) or list(shares) != sorted(set(shares)):
        raise ValueError(f"looks at {list(counts)} of {len(d)} differences, shares {list(shares)}, do not fit together")
