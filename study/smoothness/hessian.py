"""The Hessian of the training loss in the weights: top eigenvalue, trace, spectral density.

One Lanczos run per random probe serves all. Its first diagonal element is the probe's Hutchinson sample of the trace; its Ritz
values and weights are a quadrature of the spectral density (``lanczos``); and the first run continues until its largest Ritz
value, the top eigenvalue, has converged.

Source: https://arxiv.org/abs/1912.07145
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from study.errors import UserError
from study.registry import STATISTICS
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.lanczos import curve, lanczos, mass, moment

_NAMES = (
    "hessian_top_eigenvalue", "hessian_bottom_ritz", "hessian_trace", "hessian_negative_share", "hessian_zero_share",
)  # fmt: skip
# Ritz values below this share of the top one count as zero: most eigenvalues are.
_ZERO = 1e-3


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
    names=lambda settings: list(_NAMES),
    revision=2,
)
def hessian(settings: HessianSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Top eigenvalue, smallest Ritz value, trace and spectral density of the Hessian of the mean loss.

    Units: nats per squared unit of weight. The stderr of ``top_eigenvalue`` is the Ritz residual, within which an eigenvalue
    lies (an error of computation, not of sampling images). ``bottom_ritz`` bounds the smallest eigenvalue from above, with its
    own residual and the same convergence rule. ``trace`` and the masses of the density ``negative_share`` (eigenvalues below
    -0.001 of the top one) and ``zero_share`` (between plus and minus that) have standard errors over probes; the few probes
    are skewed, so five understate it. Samples are images for the first two, probes for the others. Kept as the table
    ``density``: ``eigenvalue``, ``density`` (its integral is 1) and its ``stderr`` over probes, smoothed as
    ``lanczos.curve`` says.

    Cost: num_probes * num_steps Hessian-vector products, each about two gradients of ``num_samples`` images, and what the
    first run needs beyond. Memory: max_steps vectors of the weights' size in float64. Raises ``UserError`` for non-finite
    outputs.
    """
    x, y = context.sample(settings.split, settings.num_samples, f"hessian/{settings.split}")
    operator = LossHessian(context, x, y)
    runs = []
    for probe in range(settings.num_probes):
        start = _rademacher(operator, context, probe)
        steps = settings.max_steps if probe == 0 else settings.num_steps
        tolerance = settings.tolerance if probe == 0 else 0.0
        runs.append(lanczos(operator, start, steps, tolerance, at_least=settings.num_steps))
    top, bottom = runs[0].values[-1], runs[0].values[0]
    top_residual, bottom_residual = float(runs[0].residuals[-1]), float(runs[0].residuals[0])
    limit = _ZERO * abs(float(top))
    context.keep("density", curve(runs, settings.num_steps))

    def ritz(value: Tensor, residual: float) -> Estimate:
        known = math.isfinite(float(value)) and residual <= settings.tolerance * abs(float(value))
        return Estimate(float(value), residual, len(x), known)

    return {
        "hessian_top_eigenvalue": ritz(top, top_residual),
        "hessian_bottom_ritz": ritz(bottom, bottom_residual),
        # v . H v of the unit probe is the first moment, of the probe itself n times that
        "hessian_trace": estimate.mean(operator.num_params * moment(runs, 1)),
        "hessian_negative_share": estimate.mean(mass(runs, -math.inf, -limit)),
        "hessian_zero_share": estimate.mean(mass(runs, -limit, limit)),
    }


def _rademacher(operator: LossHessian, context: MeasureContext, probe: int) -> Tensor:
    drawn = torch.randint(0, 2, (operator.num_params,), generator=context.generator(f"hessian/probe/{probe}"))
    reference = next(p for p in context.model.parameters() if p.requires_grad)
    return (2 * drawn - 1).to(reference)
