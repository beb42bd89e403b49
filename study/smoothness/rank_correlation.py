"""Rank correlations of rows, their reliability under measurement noise, and the ceiling that noise sets to them.

Rows are float64 tensors (B, U): B pairs of rows of U units give (B,), on their device. Ties have their average rank; a row
without two different values has no ranks and gives nan.

Source: https://doi.org/10.2307/2332508
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Pairwise comparisons held at once.
_MOST_PAIRS = 2**22
# Normal pairs in a simulation: the overlap's error is .003 or less for any number of units.
_DRAWN = 2**18
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
    """Share of the top tenth of units by ``a`` (``num_top``) that is also in the top tenth by ``b``."""
    top_a, top_b = (torch.argsort(-v, dim=1, stable=True)[:, : num_top(v.shape[1])] for v in (a, b))
    is_top = torch.zeros_like(a).scatter_(1, top_a, 1.0)
    varied = (a.amax(1) > a.amin(1)) & (b.amax(1) > b.amin(1))
    return is_top.gather(1, top_b).mean(1).where(varied, math.nan)


def num_top(num_units: int) -> int:
    """Number of units in the top tenth, at least one."""
    return max(1, round(TOP_SHARE * num_units))


def reliability(values: Tensor, num_halves: int, generator: torch.Generator) -> float:
    """Rank reliability of the mean over samples of ``values`` (N, U): split halves with the Spearman-Brown correction.

    The mean over ``num_halves`` random halvings of the correlation r of the halves' means, then 2 r / (1 + r); 0 if that is
    negative, nan for one sample. ``generator`` is a CPU generator.
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


def ceilings(spearman: float, num_units: int, generator: torch.Generator) -> dict[str, float]:
    """Ceilings that noise sets to ``spearman``, ``kendall`` and ``top10`` over ``num_units`` >= 2, from that of ``spearman``.

    Under a normal copula with correlation rho, U units have in expectation

        Spearman    6 / (pi (U + 1)) * (asin(rho) + (U - 2) * asin(rho / 2))    (Moran 1948)
        Kendall     2 / pi * asin(rho)                                          (Greiner; for any U)
        top tenth   no closed form for few units: simulated

    so Spearman's ceiling, in [0, 1], fixes rho and with it the others. The overlap's standard error is below .003; if nothing
    is reliable its ceiling is chance, the share of the top. Cost: 2^19 normal draws from ``generator``, on the CPU.
    """
    rho = copula_correlation(spearman, num_units)
    x, noise = torch.randn((2, max(64, _DRAWN // num_units), num_units), generator=generator, dtype=torch.float64)
    y = rho * x + math.sqrt(max(0.0, 1 - rho**2)) * noise
    return {"spearman": spearman, "kendall": 2 / math.pi * math.asin(rho), "top10": float(top_overlap(x, y).mean())}


def copula_correlation(spearman: float, num_units: int) -> float:
    """rho in [0, 1] of the normal copula with this expected Spearman correlation of ``num_units`` units."""
    rho, expected = _expected_spearman([num_units])
    return float(np.interp(spearman, expected, rho))


def without_noise(spearman: Tensor, ceiling: float, num_units: Sequence[int]) -> Tensor:
    """What mean Spearman correlations (...) over layers of these numbers of units would be if nothing were noise.

    Noise multiplies the correlation rho of a normal copula by the ceiling's; Spearman's it does not, of few units least of
    all. So both are put on the scale of rho, divided, and put back. Above the ceiling the quotient itself is given.
    """
    rho, expected = _expected_spearman(num_units)
    quotient = np.interp(spearman.abs().cpu().numpy(), expected, rho) / np.interp(ceiling, expected, rho)
    known = np.interp(quotient, rho, expected) * np.maximum(quotient, 1.0)
    return spearman.sign() * torch.from_numpy(np.asarray(known)).to(spearman)


def _expected_spearman(num_units: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """rho of a normal copula, and the mean over layers of the Spearman correlation expected of it (``ceilings``)."""
    # equal steps of the angle: the curve is steep in rho near 1
    rho = np.sin(np.linspace(0, math.pi / 2, 4097))
    units = np.asarray(num_units, dtype=np.float64)[:, None]
    expected = 6 / (math.pi * (units + 1)) * (np.arcsin(rho) + (units - 2) * np.arcsin(rho / 2))
    return rho, expected.mean(0)
