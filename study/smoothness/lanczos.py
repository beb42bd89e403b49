"""https://doi.org/10.6028/jres.045.026 (Lanczos 1950), with full reorthogonalisation: a symmetric operator's spectrum.

An operator is a function from a vector (n,) to a vector (n,); nothing here knows where it comes from. All arithmetic outside
the operator is in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
# A new direction shorter than this, relative to the operator's size, is rounding: the space is used up.
_BREAKDOWN = 1e-7


@dataclass(frozen=True)
class Ritz:
    """Ritz values (m,) in ascending order, their residual norms (m,), and their weights (m,) in the start vector.

    ``norm(A y - theta y)`` is the residual, so an eigenvalue lies within it of theta. The weights sum to 1: they are the
    nodes' in Gauss quadrature of the start vector's spectral measure (Golub and Welsch).
    """

    values: Tensor
    residuals: Tensor
    weights: Tensor
    num_products: int


def lanczos(operator: Operator, start: Tensor, num_steps: int, tolerance: float = 0.0, at_least: int = 1) -> Ritz:
    """At most ``num_steps`` products from ``start`` (n,), not zero; fewer once the largest Ritz value has converged.

    It has when its residual is at most ``tolerance`` times its magnitude (never, at 0), after ``at_least`` products; or when
    the Krylov space is used up. Memory: a float64 vector (n,) a product.
    """
    basis = [start.double() / start.double().norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    num_steps = min(num_steps, start.numel())
    while True:
        product = operator(basis[-1].to(start.dtype)).double()
        diagonal.append(float(basis[-1] @ product))
        # twice: once leaves rounding of the size of what was taken away
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
