"""The spectrum of a symmetric operator: Lanczos runs, and its density by stochastic Lanczos quadrature.

An operator is a function from a vector (n,) to a vector (n,). Arithmetic outside it is in float64, with full
reorthogonalisation. A run from a random probe is a quadrature of the probe's spectral measure; the mean over P probes is the
density (1/n) sum_i delta(t - lambda_i).

Source: https://arxiv.org/abs/1901.10159
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
# A new direction shorter than this, relative to the operator's size, is rounding: the Krylov space is exhausted.
_BREAKDOWN = 1e-7
# Points of the density's curve, and standard deviations that it continues beyond the outermost Ritz values.
_POINTS, _MARGIN = 256, 4.0


@dataclass(frozen=True)
class Ritz:
    """Ritz values (m,), ascending, their residuals norm(A y - theta y), and their weights in the start vector (sum 1)."""

    values: Tensor
    residuals: Tensor
    weights: Tensor
    num_products: int


def lanczos(operator: Operator, start: Tensor, num_steps: int, tolerance: float = 0.0, at_least: int = 1) -> Ritz:
    """At most ``num_steps`` products from ``start`` (n,), not zero; fewer once the largest Ritz value has converged.

    That is when its residual is at most ``tolerance`` times its magnitude (never, at 0), after ``at_least`` products; or when
    the Krylov space is exhausted. Memory: one float64 vector (n,) per product.
    """
    basis = [start.double() / start.double().norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    num_steps = min(num_steps, start.numel())
    while True:
        product = operator(basis[-1].to(start.dtype)).double()
        diagonal.append(float(basis[-1] @ product))
        # twice: once leaves rounding errors of the size of what was subtracted
        for direction in basis + basis:
            product = product - (direction @ product) * direction
        length = float(product.norm())
        found = _ritz(diagonal, beside, length)
        size = float(found.values.abs().max())
        used_up = length <= _BREAKDOWN * max(size, 1e-30)
        converged = tolerance > 0 and float(found.residuals[-1]) <= tolerance * abs(float(found.values[-1]))
        if used_up or (converged and len(diagonal) >= at_least) or len(diagonal) == num_steps:
            return found
        basis.append(product / length)
        beside.append(length)


def _ritz(diagonal: list[float], beside: list[float], length: float) -> Ritz:
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return Ritz(values, length * vectors[-1].abs(), vectors[0] ** 2, len(diagonal))


def moment(runs: Sequence[Ritz], power: int) -> Tensor:
    """Integral of lambda^power over each probe's measure, (P,); with m products, exact up to power 2m - 1."""
    return torch.stack([(run.weights * run.values**power).sum() for run in runs])


def mass(runs: Sequence[Ritz], above: float, up_to: float) -> Tensor:
    """Share of eigenvalues in [above, up_to) by each probe, (P,)."""
    return torch.stack([run.weights[(run.values >= above) & (run.values < up_to)].sum() for run in runs])


def curve(runs: Sequence[Ritz], num_steps: int) -> dict[str, Tensor]:
    """The mean density over probes on 256 equal steps of ``eigenvalue``: ``density`` and its ``stderr``, each (256,).

    Each Ritz value is smoothed by a normal kernel of standard deviation (largest - smallest Ritz value) / ``num_steps``: the
    resolution of that many products.
    """
    nodes = torch.cat([run.values for run in runs])
    low, high = float(nodes.min()), float(nodes.max())
    # if all eigenvalues are equal, a width that is visible beside them
    width = (high - low) / num_steps or max(abs(high), 1.0) / num_steps
    points = torch.linspace(low - _MARGIN * width, high + _MARGIN * width, _POINTS, dtype=torch.float64)
    each = torch.stack([_smoothed(run, points, width) for run in runs])
    stderr = each.std(0, correction=1) / math.sqrt(len(runs)) if len(runs) > 1 else torch.full_like(points, math.nan)
    return {"eigenvalue": points, "density": each.mean(0), "stderr": stderr}


def _smoothed(run: Ritz, points: Tensor, width: float) -> Tensor:
    distance = (points[:, None] - run.values.cpu()) / width
    return (run.weights.cpu() * torch.exp(-(distance**2) / 2)).sum(1) / (width * math.sqrt(2 * math.pi))
