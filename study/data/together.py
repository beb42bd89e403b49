"""The parts of replicates that train together, a batch of each per step.

Replicate r sees the same as alone, in its own order and augmented from its own seed. Images in memory are gathered and
augmented some batches ahead and for all replicates at once, so a step costs few operations, whatever their number.

Source: https://arxiv.org/abs/2102.02344
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from study.data.parts import Part, Split
from study.registry import AUGMENTATIONS

# uint8 values gathered ahead, all replicates together.
AHEAD = 2**23


class Together:
    """Parts of R replicates, of one size and shape; all batches have the replicates in front.

    Raises ``ValueError`` for parts that differ in size or shape.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if len({(len(part), part.image_shape) for part in parts}) != 1:
            raise ValueError("replicates that train together need parts of one size and shape")
        self.parts = list(parts)

    def __len__(self) -> int:
        return len(self.parts[0])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (R, n, C, H, W) and labels (R, n) in order: the batches that ``Part.batches`` gives each replicate."""
        yield from _side_by_side(part.batches(size) for part in self.parts)

    def epoch(
        self, orders: Sequence[Tensor], size: int, augment: str, seeds: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (R, size, C, H, W) and labels (R, size) of each step: those that ``Part.epoch`` gives each replicate."""
        splits = [part for part in self.parts if isinstance(part, Split)]
        if len(splits) == len(self.parts) and len({split.scale for split in splits}) == 1:
            yield from _gathered(splits, torch.stack(list(orders)), size, augment, seeds)
        else:
            given = zip(self.parts, orders, seeds, strict=True)
            yield from _side_by_side(part.epoch(order, size, augment, seed) for part, order, seed in given)


def _side_by_side(epochs: Iterator[Iterator[tuple[Tensor, Tensor]]]) -> Iterator[tuple[Tensor, Tensor]]:
    for batches in zip(*epochs, strict=True):
        pixels, labels = zip(*batches, strict=True)
        yield torch.stack(pixels), torch.stack(labels)


def _gathered(
    splits: Sequence[Split], orders: Tensor, size: int, augment: str, seeds: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """As ``Split.epoch``, for all replicates: uint8 images of some steps, then pixels a step at a time."""
    first, num = splits[0], orders.shape[1] // size * size
    device, scale = first.labels.device, first.scale
    drawn = None
    if augment != "none":
        chosen = AUGMENTATIONS[augment].build()
        generators = (torch.Generator().manual_seed(seed) for seed in seeds)
        drawn = torch.stack([chosen.draw(orders.shape[1], first.image_shape[1:], g) for g in generators])
        drawn = drawn.to(device, non_blocking=True)
    orders = orders.to(device, non_blocking=True)
    ahead = max(1, AHEAD // (len(splits) * size * math.prod(first.image_shape))) * size
    for start in range(0, num, ahead):
        at = slice(start, min(start + ahead, num))
        index = orders[:, at]
        images = torch.stack([split.images[i] for split, i in zip(splits, index, strict=True)])
        labels = torch.stack([split.labels[i] for split, i in zip(splits, index, strict=True)])
        if drawn is not None:
            images = chosen.apply(images.flatten(0, 1), drawn[:, at].flatten(0, 1)).view_as(images)
        for pixels, marked in zip(torch.split(images, size, 1), torch.split(labels, size, 1), strict=True):
            yield pixels.float() / scale, marked
