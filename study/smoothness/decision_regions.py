"""Decision regions on planes through three samples of different classes.

The first axis of a plane runs from x_0 to x_1, the second, orthogonal to it, towards x_2; both are in pixel lengths.

Source: https://arxiv.org/abs/2203.08124
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from study.errors import UserError
from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.pairs import draw_triplets, fixed_generator

_OUTCOMES = (
    Quantity(
        name="decision_regions_components",
        meaning="connected regions of one predicted class on a plane through three samples",
        unit="count",
        better="lower",
    ),
    Quantity(name="decision_regions_classes", meaning="classes predicted on the plane", unit="count"),
    Quantity(
        name="decision_regions_excess",
        meaning="regions less classes: 0 if each class is in one piece",
        unit="count",
        better="lower",
    ),
)
# Three samples this close to a line, relative to their distance, span no plane.
_FLAT = 1e-4


@dataclass(frozen=True, kw_only=True)
class DecisionRegionsSettings:
    """``num_planes`` planes by ``draw``; ``num_points`` per side of a grid, ``margin`` of the samples' extent beyond them."""

    num_planes: int = field(default=20, metadata={"most": 1000})
    num_points: int = field(default=40, metadata={"most": 200})
    margin: float = 0.1
    draw: int = 1
    split: str = "test"

    def __post_init__(self) -> None:
        if self.num_points < 2:
            raise UserError(
                f"statistic 'decision_regions': setting 'num_points' must be 2 or more, not {self.num_points}"
            )


@STATISTICS.register(
    "decision_regions",
    formula="connected regions of one predicted label on the plane through three samples: their number, less that of classes",
    source="https://arxiv.org/abs/2203.08124",
    settings=DecisionRegionsSettings,
    outcomes=lambda settings: _OUTCOMES,
    fewest_classes=lambda name: 3,
    revision=2,
)
def decision_regions(settings: DecisionRegionsSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Mean over planes of the number of connected regions of one predicted label; standard errors over their images.

    - ``components``: regions on the grid, four neighbours per point (the paper's fragmentation score).
    - ``classes``: different labels predicted on the grid.
    - ``excess``: their difference; 0 if every class is in one piece (but for slivers narrower than the grid).

    The planes depend on the split and on ``draw`` alone: the same for all networks that share the split; in the test split,
    for the whole study. Keeps table ``labels`` (plane, row, column, label), row 0 lowest on the second axis, and ``corners``
    (plane, corner, label, x, y: a sample, its true label and place; x_low, x_high, y_low, y_high: first and last points of the
    grid), lengths in pixel units. Cost: num_planes * num_points^2 forward passes. Raises ``UserError`` for fewer than three
    classes, no three samples off a line, or outputs that are not finite.

    Standard errors are over images: planes that share one are not independent. Coverage of .95 intervals, by t of 19 degrees:
    .94 (n = 200 samples of 360 images, 20 planes).
    """
    images, truth = context.indexed(settings.split)
    num = settings.num_points
    generator = fixed_generator(f"decision_regions/{settings.split}", settings.draw)
    triplets = draw_triplets(truth, settings.num_planes, generator)
    planes = [plane for plane in (Plane.through(images[t.to(images.device)], t) for t in triplets) if plane]
    if not planes:
        raise UserError(f"no three samples of split {settings.split!r} ({len(images)} images) span a plane")
    labels = torch.stack(
        [context.logits(plane.points(settings.margin, num).to(images[0])).argmax(1).view(num, num) for plane in planes]
    ).cpu()
    _keep(context, planes, labels, truth, settings)
    components = num_regions(labels)
    classes = torch.tensor([len(torch.unique(grid)) for grid in labels])
    found = (components, classes, components - classes)
    samples = torch.stack([plane.samples for plane in planes])
    return {o.name: estimate.mean(values, samples) for o, values in zip(_OUTCOMES, found, strict=True)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """``origin`` (...) and two orthonormal ``axes`` (2, ...); the samples lie at ``at`` (3, 2), their indices ``samples``."""

    origin: Tensor
    axes: Tensor
    at: Tensor
    samples: Tensor

    @classmethod
    def through(cls, images: Tensor, samples: Tensor) -> "Plane | None":
        """The plane through ``images`` (3, ...), in float64; ``None`` where they lie on a line."""
        origin = images[0].double()
        first, second = (image.double() - origin for image in images[1:])
        length = first.norm()
        if not length > 0:
            return None
        along = first / length
        shift = (second * along).sum()
        across = second - shift * along
        height = across.norm()
        if not height > _FLAT * torch.maximum(length, second.norm()):
            return None
        zero = torch.zeros_like(length)
        at = torch.stack([zero, zero, length, zero, shift, height]).view(3, 2)
        return cls(origin=origin, axes=torch.stack([along, across / height]), at=at.cpu(), samples=samples)

    def limits(self, margin: float) -> Tensor:
        """Lowest and highest coordinate on each axis, (2, 2): the samples' extent and ``margin`` of it beyond."""
        low, high = self.at.amin(0), self.at.amax(0)
        return torch.stack([low - margin * (high - low), high + margin * (high - low)], 1)

    def points(self, margin: float, num: int) -> Tensor:
        """Images (num * num, ...) in float64 at the grid's points, the second axis outermost."""
        x, y = (
            torch.linspace(0, 1, num, dtype=torch.float64) * (high - low) + low for low, high in self.limits(margin)
        )
        where = torch.cartesian_prod(y, x).flip(1).to(self.axes)
        points: Tensor = self.origin + torch.tensordot(where, self.axes, 1)
        return points


def _keep(
    context: MeasureContext, planes: list[Plane], labels: Tensor, truth: Tensor, settings: DecisionRegionsSettings
) -> None:
    places = [axis.flatten() for axis in torch.meshgrid(*map(torch.arange, labels.shape), indexing="ij")]
    columns = zip(("plane", "row", "column", "label"), (*places, labels.flatten()), strict=True)
    context.keep("labels", {name: values.short() for name, values in columns})
    at = torch.cat([plane.at for plane in planes])
    limits = torch.stack([plane.limits(settings.margin) for plane in planes]).repeat_interleave(3, 0)
    context.keep("corners", {
        "plane": torch.arange(len(planes)).repeat_interleave(3).short(),
        "corner": torch.arange(3).repeat(len(planes)).short(),
        "label": truth.cpu()[torch.cat([plane.samples for plane in planes])].short(),
        "x": at[:, 0], "y": at[:, 1],
        "x_low": limits[:, 0, 0], "x_high": limits[:, 0, 1], "y_low": limits[:, 1, 0], "y_high": limits[:, 1, 1],
    })  # fmt: skip


def connected_regions(labels: Tensor) -> Tensor:
    """The region of each point of grids of ``labels`` (P, H, W), as the lowest index of a point in it, int64 (P, H, W).

    Neighbours are the four points above, below, left and right; indices count all P * H * W points. On the CPU, by Shiloach
    and Vishkin (1982): each point starts as a tree of its own; neighbours of one label hook the higher root to the lower one,
    and trees are flattened, until nothing moves. The rounds grow with the logarithm of a region's length.
    """
    labels = labels.detach().cpu()
    index = torch.arange(labels.numel()).view_as(labels)
    down = labels[:, 1:] == labels[:, :-1]
    right = labels[:, :, 1:] == labels[:, :, :-1]
    a = torch.cat([index[:, :-1][down], index[:, :, :-1][right]])
    b = torch.cat([index[:, 1:][down], index[:, :, 1:][right]])
    root = index.flatten().clone()
    while True:
        low, high = torch.minimum(root[a], root[b]), torch.maximum(root[a], root[b])
        if torch.equal(low, high):
            return root.view_as(labels)
        root.scatter_reduce_(0, high, low, "amin")
        while not torch.equal(root, flatter := root[root]):
            root = flatter


def num_regions(labels: Tensor) -> Tensor:
    """Number of connected regions per grid of ``labels`` (P, H, W), int64 (P,)."""
    region = connected_regions(labels).flatten(1)
    first = torch.arange(region.numel()).view_as(region)
    return (region == first).sum(1)
