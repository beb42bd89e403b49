"""Slices of the loss along random directions in the weights.

A direction d is scaled filter by filter to the weights' own norm, d_j <- d_j norm(w_j) / norm(d_j), so a distance means the
same in networks whose weights differ in scale. A filter makes one output channel: a row of a parameter of two or more
dimensions. Biases, batch norm and single gains have at most one value per channel, and stay: the paper's directions are 0.

Source: https://arxiv.org/abs/1712.09913
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from study.errors import UserError
from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.untouched import with_weights

_OUTCOMES = (
    Quantity(
        name="loss_slices_rise",
        meaning="rise of the training loss at the ends of lines along filter-normalised random directions",
        unit="nat",
        better="lower",
    ),
    Quantity(
        name="loss_slices_rise_log",
        meaning="natural logarithm of the mean rise of the training loss at the ends of these lines",
        unit="natural logarithm",
        better="lower",
    ),
    Quantity(
        name="loss_slices_curvature",
        meaning="second difference of the training loss at the trained weights along these directions",
        unit="nat per squared relative length",
        better="lower",
    ),
)


@dataclass(frozen=True, kw_only=True)
class LossSlicesSettings:
    """Lines of ``num_points`` from -``radius`` to ``radius``, and a square of ``num_square`` points per side."""

    num_samples: int = 256
    split: str = "train"
    num_directions: int = 5
    num_points: int = field(default=21, metadata={"most": 200})
    num_square: int = field(default=15, metadata={"most": 200})
    radius: float = 1.0

    def __post_init__(self) -> None:
        for name in ("num_points", "num_square"):
            if (value := getattr(self, name)) < 3 or value % 2 == 0:
                raise UserError(
                    f"statistic 'loss_slices': setting {name!r} must be odd and 3 or more, so that the trained weights "
                    f"are on the grid, not {value}"
                )


@STATISTICS.register(
    "loss_slices",
    formula="L(w + a d + b e) along filter-normalised random directions d, e: rise at the ends, curvature in the middle",
    source="https://arxiv.org/abs/1712.09913",
    settings=LossSlicesSettings,
    outcomes=lambda settings: _OUTCOMES,
)
def loss_slices(settings: LossSlicesSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Mean cross-entropy (nats) on training images along lines and on a square through the trained weights.

    - ``rise``: (L(w + r d) + L(w - r d)) / 2 - L(w) at r = ``radius``; ``rise_log`` is the natural log of its mean.
    - ``curvature``: (L(w + h d) - 2 L(w) + L(w - h d)) / h^2 with the lines' step h, in nats per squared relative length.

    Means and standard errors over directions; a loss that is not finite is kept as such, and its estimates are not converged.
    A direction depends on the measuring seed and a parameter's first name and shape alone: networks that share these have the
    same one, up to the filters' norms. Batch norm's statistics are those of the trained weights, which are never written to.

    Keeps table ``line`` (direction, alpha, loss, accuracy) and ``square`` (alpha, beta, loss, accuracy), distances in units of
    the filters' norms. Cost: (num_directions * num_points + num_square^2) * num_samples forward passes. Raises ``UserError``
    for a network without a filter, or outputs at the trained weights that are not finite.

    Coverage of .95 intervals over directions, images held, by t of 4 degrees: .93 to .95 (n = 200 draws of five directions).
    """
    x, y = context.sample(settings.split, settings.num_samples, f"loss_slices/{settings.split}")
    context.logits(x)  # raises if outputs are not finite at the trained weights
    directions = [filter_normalised(context, index) for index in range(max(2, settings.num_directions))]
    distance = _distances(settings.radius, settings.num_points)
    lines = torch.stack(
        [_along(context, x, y, [d], distance[:, None]) for d in directions[: settings.num_directions]]
    )  # (directions, points, 2)
    side = _distances(settings.radius, settings.num_square)
    corners = torch.cartesian_prod(side, side)
    square = _along(context, x, y, directions[:2], corners)
    line = {"direction": torch.arange(len(lines)).repeat_interleave(settings.num_points)}
    for table, places, found in (
        ("line", line | {"alpha": distance.repeat(len(lines))}, lines),
        ("square", {"alpha": corners[:, 0], "beta": corners[:, 1]}, square),
    ):
        context.keep(table, places | {"loss": found[..., 0].flatten(), "accuracy": found[..., 1].flatten()})
    loss, middle = lines[..., 0], settings.num_points // 2
    step = settings.radius / middle
    rise = (loss[:, 0] + loss[:, -1]) / 2 - loss[:, middle]
    curvature = (loss[:, middle + 1] - 2 * loss[:, middle] + loss[:, middle - 1]) / step**2
    numbers = estimate.mean(rise), estimate.log_of_mean(rise), estimate.mean(curvature)
    return {outcome.name: value for outcome, value in zip(_OUTCOMES, numbers, strict=True)}


def filter_normalised(context: MeasureContext, index: int) -> dict[str, Tensor]:
    """Direction ``index`` by parameter name, for parameters with filters. Raises ``UserError`` if there are none."""
    found = {}
    for name, parameter in _filters(context).items():
        rows = context.normal(parameter, f"loss_slices/{index}/{name}").flatten(1)
        length = rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
        found[name] = (rows / length * parameter.flatten(1).norm(dim=1, keepdim=True)).view_as(parameter)
    if not found:
        raise UserError("the network has no weights of two or more dimensions: there are no filters to slice along")
    return found


def _filters(context: MeasureContext) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in context.model.named_parameters() if p.ndim > 1 and p.requires_grad}


def _distances(radius: float, num: int) -> Tensor:
    """``num`` equal steps from -``radius`` to ``radius``; the middle one is exactly 0."""
    return radius * torch.arange(-(num // 2), num // 2 + 1, dtype=torch.float64) / (num // 2)


@torch.no_grad()
def _along(context: MeasureContext, x: Tensor, y: Tensor, directions: list[dict[str, Tensor]], at: Tensor) -> Tensor:
    """Mean loss and accuracy, (P, 2) float64 on the CPU, at the weights plus ``at`` (P, D) times D directions."""
    parts = context.chunks(x, y.long())
    weights = _filters(context)
    rows = []
    for factors in at.tolist():
        moved = {
            name: weight + sum(a * d[name] for a, d in zip(factors, directions, strict=True))
            for name, weight in weights.items()
        }
        loss, right = x.new_zeros((), dtype=torch.float64), x.new_zeros((), dtype=torch.float64)
        for images, labels in parts:
            logits = with_weights(context.model, moved, images).double()
            finite = torch.isfinite(logits).all(1)  # other images have an infinite loss and count as wrong
            right += ((logits.argmax(1) == labels) & finite).sum()
            each = functional.cross_entropy(logits, labels, reduction="none")
            loss += torch.where(finite, each, math.inf).sum()
        rows.append(torch.stack([loss, right]) / len(x))
    return torch.stack(rows).cpu()
