"""https://arxiv.org/abs/2203.08124 (Somepalli et al. 2022, *Can Neural Nets Learn the Same Model Twice?*): decision regions.

The plane through three samples x_0, x_1, x_2 of different classes: the first axis from x_0 to x_1, the second orthogonal to
it, towards x_2; in pixel lengths, so that the picture is true to scale.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from study.errors import UserError
from study.registry import STATISTICS
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.fixed_samples import draw_triplets, fixed_generator
from study.smoothness.regions import num_regions

_NAMES = ("decision_regions_components", "decision_regions_classes", "decision_regions_excess")
# Three samples this near to a line, relative to their distance, span no plane.
_FLAT = 1e-4


@dataclass(frozen=True, kw_only=True)
class DecisionRegionsSettings:
    """``num_planes`` planes through samples of ``split``, drawn by ``draw``; grids of ``num_points`` a side.

    A grid reaches beyond its samples by ``margin`` of their extent on each side, as in the paper.
    """

    num_planes: int = 20
    num_points: int = 40
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
    names=lambda settings: list(_NAMES),
)
def decision_regions(settings: DecisionRegionsSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Mean over planes of the number of connected regions of one predicted label, with standard errors over planes.

    - ``components``: regions on the grid, four neighbours a point (the paper's fragmentation score).
    - ``classes``: different labels predicted on the grid.
    - ``excess``: their difference, 0 where every class is in one piece; a classifier with convex regions has 0, but for
      slivers narrower than the grid.

    The planes depend on the split and on ``draw`` alone, so they are the same for every network that shares the split: in
    the test split, for the whole study. Keeps table ``labels`` (plane, row, column, label), row 0 lowest on the second axis,
    and ``corners`` (plane, corner, label, x, y: a sample, its true label and where it lies; x_low, x_high, y_low, y_high:
    where the grid's first and last points lie), lengths in pixel units. Cost: num_planes * num_points^2 forwards. Raises
    ``UserError`` for fewer than three classes, no three samples off a line, or outputs that are not finite.
    """
    images, truth = context.split(settings.split)
    triplets = draw_triplets(
        truth, settings.num_planes, fixed_generator(f"decision_regions/{settings.split}", settings.draw)
    )
    planes = [plane for plane in (Plane.through(images[t.to(images.device)], t) for t in triplets) if plane]
    if not planes:
        raise UserError(f"no three samples of split {settings.split!r} ({len(images)} images) span a plane")
    labels = torch.stack([_labels(context, plane, settings) for plane in planes])
    _keep(context, planes, labels, truth, settings)
    components = num_regions(labels)
    classes = torch.stack([torch.tensor(len(torch.unique(grid))) for grid in labels])
    return {
        name: estimate.mean(values)
        for name, values in zip(_NAMES, (components, classes, components - classes), strict=True)
    }


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


def _labels(context: MeasureContext, plane: Plane, settings: DecisionRegionsSettings) -> Tensor:
    """Predicted labels (num_points, num_points) on the CPU."""
    points = plane.points(settings.margin, settings.num_points).to(context.images[settings.split])
    label = context.logits(points).argmax(1).cpu()
    return label.view(settings.num_points, settings.num_points)


def _keep(
    context: MeasureContext, planes: list[Plane], labels: Tensor, truth: Tensor, settings: DecisionRegionsSettings
) -> None:
    plane, row, column = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, labels.shape), indexing="ij"))
    places = {"plane": plane, "row": row, "column": column, "label": labels.flatten()}
    context.keep("labels", {name: values.short() for name, values in places.items()})
    at = torch.cat([plane.at for plane in planes])
    limits = torch.stack([plane.limits(settings.margin) for plane in planes]).repeat_interleave(3, 0)
    samples = torch.cat([plane.samples for plane in planes])
    corners = {
        "plane": torch.arange(len(planes)).repeat_interleave(3),
        "corner": torch.arange(3).repeat(len(planes)),
        "label": truth.cpu()[samples],
    }
    places = {"x": at[:, 0], "y": at[:, 1], "x_low": limits[:, 0, 0], "x_high": limits[:, 0, 1]}
    places |= {"y_low": limits[:, 1, 0], "y_high": limits[:, 1, 1]}
    context.keep("corners", {**{name: values.short() for name, values in corners.items()}, **places})
