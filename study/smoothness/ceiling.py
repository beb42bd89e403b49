"""https://doi.org/10.2307/2332508 (Moran 1948): rank measures of agreement that noise leaves possible, from one correlation.

Under a normal copula with correlation rho, U units drawn from it have in expectation

    Spearman    6 / (pi (U + 1)) * (asin(rho) + (U - 2) * asin(rho / 2))    (Moran; 6 / pi * asin(rho / 2) for many units)
    Kendall     2 / pi * asin(rho)                                          (Greiner; for any number of units)
    top tenth   no closed form for few units: simulated

so the ceiling of Spearman's correlation, which reliabilities give, fixes rho and with it the other two ceilings. Of few
units the top tenth of both agrees less often than of many (two of sixteen at rho = 0.8: .555, not .587), which is why it is
not P(Y > t | X > t).
"""

import math

import numpy as np
import torch

from study.smoothness.rank_correlation import top_overlap

# normal pairs in a simulation: the overlap's error is .003 or less for any number of units
_DRAWN = 2**18


def ceilings(spearman: float, num_units: int, generator: torch.Generator) -> dict[str, float]:
    """Ceilings of ``spearman``, ``kendall`` and ``top10`` over ``num_units`` >= 2; the first, in [0, 1], is given.

    The overlap's standard error is below .003; where nothing is reliable its ceiling is what chance gives, the share of the
    top. Cost: 2^19 normal draws. ``generator`` is one of the CPU.
    """
    rho = copula_correlation(spearman, num_units)
    x, noise = torch.randn((2, max(64, _DRAWN // num_units), num_units), generator=generator, dtype=torch.float64)
    y = rho * x + math.sqrt(max(0.0, 1 - rho**2)) * noise
    return {
        "spearman": spearman,
        "kendall": 2 / math.pi * math.asin(rho),
        "top10": float(top_overlap(x, y).mean()),
    }


def copula_correlation(spearman: float, num_units: int) -> float:
    """rho in [0, 1] of the normal copula of which ``num_units`` units have this Spearman correlation in expectation."""
    # even steps of the angle: the curve is steep in rho near 1
    rho = np.sin(np.linspace(0, math.pi / 2, 4097))
    expected = 6 / (math.pi * (num_units + 1)) * (np.arcsin(rho) + (num_units - 2) * np.arcsin(rho / 2))
    return float(np.interp(spearman, expected, rho))
