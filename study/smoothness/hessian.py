"""https://arxiv.org/abs/1912.07145 (Yao et al. 2020, PyHessian): the Hessian of the training loss in the weights.

One Lanczos run a random probe serves all: its first diagonal element is the probe's Hutchinson sample of the trace, its
Ritz values and weights are a quadrature of the spectral density (stochastic Lanczos quadrature, arXiv 1901.10159), and the
first run goes on until its largest Ritz value has converged: the top eigenvalue.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from study.registry import STATISTICS
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.hessian_operator import LossHessian
from study.smoothness.lanczos import lanczos
from study.smoothness.spectral_density import curve, mass, moment

_NAMES = (
    "hessian_top_eigenvalue", "hessian_bottom_ritz", "hessian_trace", "hessian_negative_share", "hessian_zero_share",
)  # fmt: skip
# Ritz values nearer to zero than this share of the top one count as zero: most eigenvalues are.
_ZERO = 1e-3


@dataclass(frozen=True, kw_only=True)
class HessianSettings:
    """``num_samples`` images of ``split``; ``num_probes`` Rademacher vectors of ``num_steps`` products each.

    The first goes on, to ``max_steps`` at most, until the top eigenvalue's residual is within ``tolerance`` of it.
    """

    num_samples: int = 256
    split: str = "train"
    num_probes: int = 5
    num_steps: int = 20
    max_steps: int = 100
    tolerance: float = 1e-2


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

    Units: nats per squared unit of weight. ``top_eigenvalue``'s stderr is the Ritz residual, within which an eigenvalue
    lies (an error of computing, not of sampling images); ``bottom_ritz`` bounds the smallest eigenvalue from above, with its
    own residual, and is converged as the top one is. ``trace`` and the masses of the density ``negative_share`` (eigenvalues
    below -0.001 of the top one) and ``zero_share`` (those between plus and minus that) have standard errors over probes, of
    which few are skewed: five understate it. Samples are images for the first two, probes for the others. Kept as the table
    ``density``: ``eigenvalue``, ``density`` (its integral is 1) and its ``stderr`` over probes, smoothed as ``curve`` says.

    Cost: num_probes * num_steps Hessian-vector products, each about two gradients of ``num_samples`` images, and what the
    first run needs beyond; memory for max_steps vectors of the weights' size in float64. Raises ``UserError`` for
    non-finite outputs.
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
        # v . H v of the unit probe is the first moment, and of the probe itself n times that
        "hessian_trace": estimate.mean(operator.num_params * moment(runs, 1)),
        "hessian_negative_share": estimate.mean(mass(runs, -math.inf, -limit)),
        "hessian_zero_share": estimate.mean(mass(runs, -limit, limit)),
    }


def _rademacher(operator: LossHessian, context: MeasureContext, probe: int) -> Tensor:
    drawn = torch.randint(0, 2, (operator.num_params,), generator=context.generator(f"hessian/probe/{probe}"))
    reference = next(p for p in context.model.parameters() if p.requires_grad)
    return (2 * drawn - 1).to(reference)
