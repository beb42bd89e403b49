"""The Hessian of the training loss in the weights: top eigenvalue, trace, spectral density.

One Lanczos run per random probe serves all. Its first diagonal element is the probe's Hutchinson sample of the trace; its Ritz
values and weights are a quadrature of the spectral density; the first run continues until its top eigenvalue has converged.

Lanczos runs take any symmetric operator, a function from a vector (n,) to a vector (n,). Arithmetic outside it is in float64,
with full reorthogonalisation. A run from a random probe is a quadrature of the probe's spectral measure; the mean over probes
is the density (1/n) sum_i delta(t - lambda_i), as in https://arxiv.org/abs/1901.10159.

Source: https://arxiv.org/abs/1912.07145
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from study.errors import UserError
from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate

_UNIT = "nat per squared unit of weight"
_OUTCOMES = (
    Quantity(
        name="hessian_top_eigenvalue",
        meaning="largest eigenvalue of the Hessian of the training loss in the weights",
        unit=_UNIT,
        better="lower",
    ),
    Quantity(name="hessian_bottom_ritz", meaning="upper bound of the Hessian's smallest eigenvalue", unit=_UNIT),
    Quantity(
        name="hessian_trace",
        meaning="trace of the Hessian of the training loss in the weights",
        unit=_UNIT,
        better="lower",
    ),
    Quantity(
        name="hessian_negative_share",
        meaning="share of the Hessian's eigenvalues below -0.001 of the largest",
        unit="fraction of eigenvalues",
    ),
    Quantity(
        name="hessian_zero_share",
        meaning="share of the Hessian's eigenvalues within 0.001 of the largest around zero",
        unit="fraction of eigenvalues",
    ),
)
# Ritz values below this share of the top one count as zero: most eigenvalues are.
_ZERO = 1e-3
# A new direction shorter than this, relative to the operator's size, is rounding: the Krylov space is exhausted.
_BREAKDOWN = 1e-7
# Points of the density's curve, and standard deviations that it continues beyond the outermost Ritz values.
_POINTS, _MARGIN = 256, 4.0
_MOST_ON_DEVICE = 2**31
Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class HessianSettings:
    """``num_probes`` runs of ``num_steps`` products; the first up to ``max_steps``, until converged to ``tolerance``."""

    num_samples: int = 256
    split: str = "train"
    num_probes: int = 5
    num_steps: int = 20
    max_steps: int = 100
    tolerance: float = 1e-2


class LossHessian:
    """Hessian of the mean cross-entropy (nats) on images ``x`` with labels ``y``, in the trained parameters, as products.

    H v is the gradient of (gradient . v), by Pearlmutter (1994). The gradient's graph is built once and kept if all images fit
    in one chunk, else once per chunk and product to save memory. In evaluation mode, so batch norm's statistics are constants.
    Raises ``UserError`` for a network without trained parameters and, when called, for outputs that are not finite.
    """

    def __init__(self, context: MeasureContext, x: Tensor, y: Tensor) -> None:
        self._context = context
        self._chunks = context.chunks(x, y)
        self._num_images = len(x)
        self._parameters = [p for p in context.model.parameters() if p.requires_grad]
        if not self._parameters:
            raise UserError("the network has no trained parameters: its loss has no Hessian in them")
        self._kept: list[Tensor] | None = None
        self.num_params = sum(p.numel() for p in self._parameters)
        self.num_products = 0

    def __call__(self, vector: Tensor) -> Tensor:
        """H ``vector``, both (num_params,), in the parameters' dtype."""
        self.num_products += 1
        parts = torch.split(vector, [p.numel() for p in self._parameters])
        directions = [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]
        total = torch.zeros_like(vector)
        for gradients in self._gradients():
            with torch.enable_grad():
                along = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
            assert isinstance(along, Tensor)
            if not along.requires_grad:  # the gradient is constant in the weights
                continue
            found = torch.autograd.grad(
                along, self._parameters, retain_graph=self._kept is not None, materialize_grads=True
            )
            total += torch.cat([part.flatten() for part in found])
        return total

    def _gradients(self) -> Iterator[list[Tensor]]:
        if self._kept is not None:
            yield self._kept
            return
        for x, y in self._chunks:
            with torch.enable_grad():
                logits = self._context.checked(self._context.model(x))
                loss = functional.cross_entropy(logits, y, reduction="sum") / self._num_images
                gradients = list(torch.autograd.grad(loss, self._parameters, create_graph=True, materialize_grads=True))
            if len(self._chunks) == 1:
                self._kept = gradients
            yield gradients


@STATISTICS.register(
    "hessian",
    formula="H = d^2 L / dw^2: top eigenvalue (Lanczos), trace (Hutchinson), density and shares of it (Lanczos quadrature)",
    source="https://arxiv.org/abs/1912.07145",
    settings=HessianSettings,
    outcomes=lambda settings: _OUTCOMES,
    revision=3,
)
def hessian(settings: HessianSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Top eigenvalue, smallest Ritz value, trace and spectral density of the Hessian of the mean loss.

    Units: nats per squared unit of weight. The stderr of ``top_eigenvalue`` is the Ritz residual, within which an eigenvalue
    lies (an error of computation, not of sampling images). ``bottom_ritz`` bounds the smallest eigenvalue from above, with its
    own residual and the same convergence rule. ``trace`` and the masses of the density ``negative_share`` (eigenvalues below
    -0.001 of the top one) and ``zero_share`` (between plus and minus that) have standard errors over random probes, the images
    held; those of the masses include by how much half of the products would give another. Samples are images for the first
    two, probes for the others. Kept as the table ``density``: ``eigenvalue``, ``density`` (its integral is 1) and ``stderr``
    over probes, smoothed by ``curve``.

    Cost: num_probes * num_steps Hessian-vector products, each about two gradients of ``num_samples`` images, and what the
    first run needs beyond. Memory: max_steps vectors of the weights' size in float64 (``lanczos``). Raises ``UserError`` for
    non-finite outputs.

    Coverage of .95 intervals over probes, images held: of the trace, value +- 1.96 standard errors, .92; of the shares, by t
    of 4 degrees, .77 and .67, since 20 products barely resolve so small a limit (n = 200 draws of five probes; .29 and .59
    with errors over probes alone). More ``num_steps`` do more for them than more probes.
    """
    x, y = context.sample(settings.split, settings.num_samples, f"hessian/{settings.split}")
    operator = LossHessian(context, x, y)
    runs, like = [], next(p for p in context.model.parameters() if p.requires_grad)
    for probe in range(settings.num_probes):
        drawn = torch.randint(0, 2, (operator.num_params,), generator=context.generator(f"hessian/probe/{probe}"))
        steps = settings.max_steps if probe == 0 else settings.num_steps
        tolerance = settings.tolerance if probe == 0 else 0.0
        start = (2 * drawn - 1).to(like)
        runs.append(lanczos(operator, start, steps, tolerance, at_least=settings.num_steps))
    limit = _ZERO * abs(float(runs[0].values[-1]))
    context.keep("density", curve(runs, settings.num_steps))

    def ritz(index: int) -> Estimate:
        value, residual = float(runs[0].values[index]), float(runs[0].residuals[index])
        return Estimate(value, residual, len(x), math.isfinite(value) and residual <= settings.tolerance * abs(value))

    return {
        "hessian_top_eigenvalue": ritz(-1),
        "hessian_bottom_ritz": ritz(0),
        "hessian_trace": trace(runs, operator.num_params),
        "hessian_negative_share": share(runs, -math.inf, -limit),
        "hessian_zero_share": share(runs, -limit, limit),
    }


def trace(runs: Sequence["Ritz"], size: int) -> Estimate:
    """Hutchinson's estimate of the trace of a matrix A (``size``, ``size``), with the standard error of random signs v.

    The variance of v . A v is 2 (norm_F(A)^2 - sum of A_ii^2), and the mean of norm(A v)^2 is norm_F(A)^2. So it is bounded by
    twice the latter, which the same probes give: their own spread is too rough a measure where few eigenvalues dominate.
    Source: https://doi.org/10.1145/1944345.1944349
    """
    # v . A v of the unit probe is the first moment, of the probe itself size times that
    found = estimate.mean(size * moment(runs, 1))
    # of the unit probe, norm(A v) is that of the tridiagonal matrix's first column
    square = size * math.fsum(run.diagonal[0] ** 2 + run.beside[0] ** 2 for run in runs) / len(runs)
    return replace(found, stderr=math.sqrt(2 * square / len(runs)))


@dataclass(frozen=True)
class Ritz:
    """Ritz values (m,), ascending, their residuals norm(A y - theta y), and their weights in the start vector (sum 1).

    They are those of the tridiagonal matrix with ``diagonal`` (m,) and ``beside`` (m,) it, of which the last goes beyond.
    """

    values: Tensor
    residuals: Tensor
    weights: Tensor
    diagonal: Sequence[float]
    beside: Sequence[float]

    @property
    def num_products(self) -> int:
        """m."""
        return len(self.diagonal)

    def half(self) -> "Ritz":
        """What the run had after half of its products."""
        num = max(1, self.num_products // 2)
        return _ritz(self.diagonal[:num], self.beside[:num])


def lanczos(operator: Operator, start: Tensor, num_steps: int, tolerance: float = 0.0, at_least: int = 1) -> Ritz:
    """At most ``num_steps`` products from ``start`` (n,), not zero; fewer once the largest Ritz value has converged.

    That is when its residual is at most ``tolerance`` times its magnitude (never, at 0), after ``at_least`` products; or when
    the Krylov space is exhausted. Memory: one float64 vector (n,) per product, the host's where they would take more than
    ``_MOST_ON_DEVICE`` bytes of a GPU; of a ResNet-50, 100 take 20 GB.
    """
    fits = 8 * num_steps * start.numel() <= _MOST_ON_DEVICE
    basis = [(start.double() / start.double().norm()).to(start.device if fits else "cpu")]
    diagonal: list[float] = []
    beside: list[float] = []
    num_steps = min(num_steps, start.numel())
    while True:
        product = operator(basis[-1].to(start)).double().to(basis[0].device)
        diagonal.append(float(basis[-1] @ product))
        # twice: once leaves rounding errors of the size of what was subtracted
        for direction in basis + basis:
            product = product - (direction @ product) * direction
        length = float(product.norm())
        found = _ritz(diagonal, [*beside, length])
        size = float(found.values.abs().max())
        used_up = length <= _BREAKDOWN * max(size, 1e-30)
        converged = tolerance > 0 and float(found.residuals[-1]) <= tolerance * abs(float(found.values[-1]))
        if used_up or (converged and len(diagonal) >= at_least) or len(diagonal) == num_steps:
            return found
        basis.append(product / length)
        beside.append(length)


def _ritz(diagonal: Sequence[float], beside: Sequence[float]) -> Ritz:
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if len(diagonal) > 1:
        off = torch.tensor(beside[:-1], dtype=torch.float64)
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return Ritz(values, beside[-1] * vectors[-1].abs(), vectors[0] ** 2, tuple(diagonal), tuple(beside))


def moment(runs: Sequence[Ritz], power: int) -> Tensor:
    """Integral of lambda^power over each probe's measure, (P,); with m products, exact up to power 2m - 1."""
    return torch.stack([(run.weights * run.values**power).sum() for run in runs])


def mass(runs: Sequence[Ritz], above: float, up_to: float) -> Tensor:
    """Share of eigenvalues in [above, up_to) by each probe, (P,)."""
    return torch.stack([run.weights[(run.values >= above) & (run.values < up_to)].sum() for run in runs])


def share(runs: Sequence[Ritz], above: float, up_to: float) -> Estimate:
    """The mean ``mass`` over probes; its error is over probes, and by how much the second half of the products moved it."""
    found = estimate.mean(mass(runs, above, up_to))
    moved = found.value - float(mass([run.half() for run in runs], above, up_to).mean())
    return replace(found, stderr=math.hypot(found.stderr, moved))


def curve(runs: Sequence[Ritz], num_steps: int) -> dict[str, Tensor]:
    """The mean density over probes on 256 equal steps of ``eigenvalue``: ``density`` and its ``stderr``, each (256,).

    Each Ritz value is smoothed by a normal kernel of sd (largest - smallest Ritz value) / ``num_steps``: the runs' resolution.
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
