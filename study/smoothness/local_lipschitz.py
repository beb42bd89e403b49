"""Local Lipschitz bounds: the spectral norm of the input Jacobian D J at real samples, J = dz/dx.

With few classes it is computed exactly (``jacobian_gram``), one backward pass per class. With many it is bounded from below by
power iteration on D J J^T D for a whole batch: J^T w is a backward pass, J v the derivative of that pass in w.

Source: https://arxiv.org/abs/2302.10886
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from study.registry import STATISTICS
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.jacobian_gram import SCALES, Linear, differentials, jacobian_norms, norm_quantities, spectral
from study.smoothness.scales import classes_for_scale

_MOMENTS: dict[str, Callable[[Tensor], Estimate]] = {
    "mean": estimate.mean,
    "mean_log": estimate.mean_log,
    "p95": functools.partial(estimate.quantile, q=0.95),
}
_WORDS = {"mean": "mean", "mean_log": "mean natural logarithm", "p95": "95th percentile"}

# Up to this many classes the exact Jacobian costs less: on a trained ResNet-20 of width 8, .10 of power iteration's time at 10
# classes, .81 to .92 at 100 (64 and 16 CIFAR-sized images, one thread, n = 1).
MOST_CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class LocalLipschitzSettings:
    """``num_samples`` images of ``split``; power iteration to a relative change of ``tolerance``, or ``max_iterations``."""

    num_samples: int = 64
    split: str = "test"
    max_iterations: int = 100
    tolerance: float = 1e-3


@STATISTICS.register(
    "local_lipschitz",
    formula="spectral norm of dp/dx, dz/dx, d(unit logits)/dx, exact or by iteration: mean, mean log, 95th percentile",
    source="https://arxiv.org/abs/2302.10886",
    settings=LocalLipschitzSettings,
    outcomes=lambda settings: norm_quantities("lipschitz", "spectral", _WORDS),
    fewest_classes=classes_for_scale,
    revision=2,
)
def local_lipschitz(settings: LocalLipschitzSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Mean, mean log and 95th percentile over samples of the input Jacobian's spectral norm, on three scales.

    Units: output per unit of pixel intensity in [0, 1]. Standard errors over samples; a norm of zero leaves ``mean_log`` nan,
    not converged; unit logits of two classes are never converged. Up to ``MOST_CLASSES`` classes the norms are exact, and the
    images are the first of ``input_jacobian``'s. With more classes each iterate is a lower bound, not converged if a sample's
    norm still moved by more than ``tolerance`` at the last iteration; start vectors depend on the measuring seed alone. Cost
    per sample: 1 forward and K backward passes, shared with ``input_jacobian``, or 2 backward passes per scale and iteration.
    Raises ``UserError`` for non-finite outputs.

    Coverage of .95 intervals over samples of images: .92 to .97, of the percentile .90 (n = 200 samples of 64 images).
    """
    if context.num_classes <= MOST_CLASSES:
        exact = jacobian_norms(context, settings.split, settings.num_samples, spectral)
        found = {scale: (norms, True) for scale, norms in exact.items()}
    else:
        found = _by_iteration(settings, context)
    return {
        f"lipschitz_{scale}_{name}": of(norms).provided(converged)
        for scale, (norms, converged) in found.items()
        for name, of in _MOMENTS.items()
    }


def _by_iteration(settings: LocalLipschitzSettings, context: MeasureContext) -> dict[str, tuple[Tensor, bool]]:
    """Lower bounds of the spectral norms (N,) by scale, each with whether all converged."""
    images, _ = context.indexed(settings.split)
    x = images[context.near_order(settings.split)[: settings.num_samples].to(images.device)]
    generator = context.generator(f"local_lipschitz/start/{settings.split}")
    start = torch.randn(len(x), context.num_classes, generator=generator, dtype=torch.float64).to(x.device)
    parts = [_norms(settings, context, *part) for part in context.chunks(x, start)]
    columns = {scale: zip(*(part[scale] for part in parts), strict=True) for scale in SCALES}
    return {scale: (torch.cat(norms), all(converged)) for scale, (norms, converged) in columns.items()}


def _norms(
    settings: LocalLipschitzSettings, context: MeasureContext, x: Tensor, start: Tensor
) -> dict[str, tuple[Tensor, bool]]:
    """``_by_iteration`` of one chunk."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = context.checked(context.model(x))
        dummy = torch.zeros_like(z, requires_grad=True)
        pulled = torch.autograd.grad(z, x, dummy, create_graph=True)[0]  # J^T dummy, linear in dummy

    def pull(w: Tensor) -> Tensor:
        return torch.autograd.grad(z, x, w.to(z.dtype), retain_graph=True)[0]

    def push(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, dummy, v, retain_graph=True)[0].double()

    return {
        scale: _power_iteration(differential, pull, push, start, settings)
        for scale, differential in differentials(z.detach().double()).items()
    }


def _power_iteration(
    differential: Linear, pull: Linear, push: Linear, u: Tensor, settings: LocalLipschitzSettings
) -> tuple[Tensor, bool]:
    norms = u.new_zeros(len(u))
    for _ in range(settings.max_iterations):
        before, u = norms, _unit(u)
        w = differential(u[..., None])[..., 0]
        size = w.norm(dim=-1, keepdim=True)
        v = pull(_unit(w))  # of length one: float32 does not underflow where p is saturated
        norms = v.flatten(1).double().norm(dim=-1) * size[:, 0]
        if bool(((norms - before).abs() <= settings.tolerance * norms).all()):
            return norms, True
        u = differential(push(v)[..., None])[..., 0]
    return norms, False


def _unit(w: Tensor) -> Tensor:
    norm = w.norm(dim=-1, keepdim=True)
    return torch.where(norm == 0, 0.0, w / norm)
