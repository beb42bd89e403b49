"""Input curvature: how fast the loss's gradient turns near real samples.

norm(grad l(x + h z) - grad l(x)) / h with z = sign(grad l(x)) / norm(sign(grad l(x))), l the cross-entropy in nats. Steps are
finite because a ReLU network is piecewise linear: its second derivative is 0 almost everywhere, while its gradient jumps
between regions. A larger h sees more of them.

Source: https://arxiv.org/abs/1811.09716
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate

_SCALES = ("", "_tempered")


@dataclass(frozen=True, kw_only=True)
class InputCurvatureSettings:
    """``num_samples`` images of ``split``; ``steps`` h, Euclidean lengths in [0, 1] pixel units."""

    num_samples: int = 512
    split: str = "test"
    steps: tuple[float, ...] = (0.1, 0.5, 1.0)


def _outcomes(settings: InputCurvatureSettings) -> list[Quantity]:
    found = []
    for step in settings.steps:
        for scale in _SCALES:
            loss = "the temperature-scaled cross-entropy" if scale else "the cross-entropy"
            over = f"over images of the change of the gradient of {loss} in the image, over a step of {step:g}"
            prefix = f"curvature_{step:g}{scale}"
            unit = "nat per squared unit of pixel intensity"
            found += [
                Quantity(name=f"{prefix}_mean", meaning=f"mean {over}", unit=unit, better="lower"),
                Quantity(
                    name=f"{prefix}_mean_log",
                    meaning=f"mean natural logarithm {over}",
                    unit="natural logarithm",
                    better="lower",
                ),
            ]
    return found


@STATISTICS.register(
    "input_curvature",
    formula="norm(grad l(x + h z) - grad l(x)) / h, z the normalised sign of the gradient: mean, mean log",
    source="https://arxiv.org/abs/1811.09716",
    settings=InputCurvatureSettings,
    outcomes=_outcomes,
)
def input_curvature(settings: InputCurvatureSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Mean and mean log over samples, for each step h, of the cross-entropy and of the temperature-scaled one.

    Units: nats per squared pixel unit, pixels in [0, 1]; x + h z is not clipped. Standard errors over images. A sample with a
    zero gradient counts as curvature 0; it leaves ``mean_log`` nan, not converged, as does one whose gradient does not change.
    Cost per sample and scale: 1 + steps forward and backward passes. Raises ``UserError`` for non-finite outputs.

    Coverage of .95 intervals over samples of images: .95 to .97 (n = 200 samples of 360 images).
    """
    x, y = context.sample(settings.split, settings.num_samples, f"input_curvature/{settings.split}")
    found: dict[str, Estimate] = {}
    for scale in _SCALES:
        temperature, known = (context.temperature, context.temperature_known) if scale else (1.0, True)
        parts = [_curvatures(context, *part, settings.steps, temperature) for part in context.chunks(x, y)]
        for step, values in zip(settings.steps, torch.cat(parts).unbind(1), strict=True):
            found[f"curvature_{step:g}{scale}_mean"] = estimate.mean(values).provided(known)
            found[f"curvature_{step:g}{scale}_mean_log"] = estimate.mean_log(values).provided(known)
    return found


def _curvatures(context: MeasureContext, x: Tensor, y: Tensor, steps: tuple[float, ...], temperature: float) -> Tensor:
    """(N, steps), float64."""
    gradient = _gradient(context, x, y, temperature)
    sign = gradient.sign().flatten(1)
    # at a zero gradient the direction is zero too
    direction = (sign / sign.norm(dim=1, keepdim=True).clamp_min(1.0)).view_as(x)
    columns = [
        (_gradient(context, x + step * direction, y, temperature) - gradient).double().flatten(1).norm(dim=1) / step
        for step in steps
    ]
    return torch.stack(columns, 1)


def _gradient(context: MeasureContext, x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Gradient of each image's own loss: in evaluation mode, that of their sum."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = context.checked(context.model(x)).double() / temperature
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, y, reduction="sum"), x)
    return gradient
