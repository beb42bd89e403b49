"""https://doi.org/10.2307/1412159 (Spearman 1904): rank correlations of rows, and what measurement noise leaves of them.

All take float64 tensors (B, U), B pairs of rows of U units, and give (B,), on their device. Ties have their average rank; a
row without two different values has no ranks, and nan comes out.
"""

import math

import torch
from torch import Tensor

# pairwise comparisons held at once
_MOST_PAIRS = 2**22
TOP_SHARE = 0.1


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of average ranks."""
    a, b = _ranks(a)[0], _ranks(b)[0]
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()


def kendall(a: Tensor, b: Tensor) -> Tensor:
    """Tau-b: concordant minus discordant pairs, over the geometric mean of the pairs untied in each (Kendall 1945)."""
    (a, untied_a), (b, untied_b) = _ranks(a), _ranks(b)
    size = max(1, _MOST_PAIRS // a.shape[1] ** 2)
    found = []
    # signs in float32, a quarter of the traffic: a row's sum is a whole number that it holds exactly
    for left, right in zip(torch.split(a.float(), size), torch.split(b.float(), size), strict=True):
        signs = (left[:, :, None] - left[:, None, :]).sign_()
        signs *= (right[:, :, None] - right[:, None, :]).sign_()
        found.append(signs.sum(2).double().sum(1))
    return torch.cat(found) / (untied_a * untied_b).sqrt()


def top_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Share of the top tenth of units by ``a`` (``num_top``) that is in the top tenth by ``b`` too."""
    top_a, top_b = (torch.argsort(-v, dim=1, stable=True)[:, : num_top(v.shape[1])] for v in (a, b))
    is_top = torch.zeros_like(a).scatter_(1, top_a, 1.0)
    varied = (a.amax(1) > a.amin(1)) & (b.amax(1) > b.amin(1))
    return is_top.gather(1, top_b).mean(1).where(varied, math.nan)


def num_top(num_units: int) -> int:
    """How many units are the top tenth: one at the least."""
    return max(1, round(TOP_SHARE * num_units))


def reliability(values: Tensor, num_halves: int, generator: torch.Generator) -> float:
    """Rank reliability of the mean over samples of ``values`` (N, U): split halves, stepped up by Spearman and Brown.

    The mean over ``num_halves`` random halvings of the correlation r of the halves' means, then 2 r / (1 + r). Below zero
    there is nothing reliable, and 0 comes out; one sample has no halves, and nan comes out. ``generator`` is one of the CPU.
    """
    num = len(values)
    if num < 2:
        return math.nan
    orders = torch.stack([torch.randperm(num, generator=generator) for _ in range(num_halves)]).to(values.device)
    halves = [
        torch.stack([values[order].mean(0) for order in part])
        for part in (orders[:, : num // 2], orders[:, num // 2 :])
    ]
    half = float(spearman(*halves).mean())
    return max(0.0, 2 * half / (1 + half)) if half > -1 else 0.0


def _ranks(values: Tensor) -> tuple[Tensor, Tensor]:
    """Average ranks (B, U), and the number of ordered pairs of units (B,) that are not tied."""
    values = values.contiguous()
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to + 1).double() / 2, values.shape[1] ** 2 - (up_to - below).sum(1).double()
