"""https://doi.org/10.2307/1412159 (Spearman 1904): rank correlations of rows, and what measurement noise leaves of them.

All take float64 arrays (B, U), B pairs of rows of U units, and give (B,). Ties have their average rank; a row without two
different values has no ranks, and nan comes out.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# pairwise comparisons held at once
_MOST_PAIRS = 2**24
TOP_SHARE = 0.1


def spearman(a: Array, b: Array) -> Array:
    """Pearson's correlation of average ranks."""
    return _correlation(_ranks(a), _ranks(b))


def kendall(a: Array, b: Array) -> Array:
    """Tau-b: concordant minus discordant pairs, over the geometric mean of the pairs untied in each (Kendall 1945)."""
    found = []
    for left, right in _chunks(a, b):
        x, y = _signs(left), _signs(right)
        untied = np.sqrt((x * x).sum((1, 2)) * (y * y).sum((1, 2)))
        with np.errstate(invalid="ignore"):
            found.append((x * y).sum((1, 2)) / untied)
    return np.concatenate(found)


def top_overlap(a: Array, b: Array) -> Array:
    """Share of the top tenth of units by ``a`` (one at the least) that is in the top tenth by ``b`` too."""
    num_units = a.shape[1]
    num_top = max(1, round(TOP_SHARE * num_units))
    top_a = np.argsort(-a, axis=1, kind="stable")[:, :num_top]
    top_b = np.argsort(-b, axis=1, kind="stable")[:, :num_top]
    shared: Array = (top_a[:, :, None] == top_b[:, None, :]).any(2).mean(1)
    return np.where((np.ptp(a, axis=1) > 0) & (np.ptp(b, axis=1) > 0), shared, np.nan)


def reliability(values: Array, num_halves: int, generator: np.random.Generator) -> float:
    """Rank reliability of the mean over samples of ``values`` (N, U): split halves, stepped up by Spearman and Brown.

    The mean over ``num_halves`` random halvings of the correlation r of the halves' means, then 2 r / (1 + r). Below zero
    there is nothing reliable, and 0 comes out; one sample has no halves, and nan comes out.
    """
    num = len(values) // 2
    if not num:
        return math.nan
    orders = np.stack([generator.permutation(len(values)) for _ in range(num_halves)])
    halves = [np.stack([values[order].mean(0) for order in part]) for part in (orders[:, :num], orders[:, num:])]
    half = float(spearman(*halves).mean())
    return max(0.0, 2 * half / (1 + half)) if half > -1 else 0.0


def _ranks(values: Array) -> Array:
    found = []
    for (part,) in _chunks(values):
        below = (part[:, :, None] > part[:, None, :]).sum(2)
        equal = (part[:, :, None] == part[:, None, :]).sum(2)
        found.append(below + (equal + 1) / 2)
    return np.concatenate(found)


def _signs(values: Array) -> Array:
    return np.sign(values[:, :, None] - values[:, None, :])


def _chunks(*arrays: Array) -> list[tuple[Array, ...]]:
    num_rows, num_units = arrays[0].shape
    size = max(1, _MOST_PAIRS // num_units**2)
    return [tuple(array[start : start + size] for array in arrays) for start in range(0, num_rows, size)]


def _correlation(a: Array, b: Array) -> Array:
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found: Array = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return found
