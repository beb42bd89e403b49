"""Parts of a dataset: their protocol, the part in memory, and the parts of replicates that train together.

Images in memory are held once a process, as uint8: the splits of all blocks are lists of indices into them, and only the
images of a batch become floats, on the device. Training, evaluation and measuring take batches from a ``Part``, of a tensor
(``Split``) or of files (``study.data.stream``).

Source: https://arxiv.org/abs/2102.02344
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from study.registry import AUGMENTATIONS

# Values in one batch that is evaluated: 222 images of 3x224x224; of small images as many as are asked for.
LARGEST_BATCH = 2**25
# uint8 values gathered ahead for replicates that train together, all of them counted.
AHEAD = 2**23


class Part(Protocol):
    """Images and their ``labels`` (N,), int64, on the device where the batches are wanted."""

    @property
    def labels(self) -> Tensor:
        """One class per image, from 0: int64 (N,)."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels in order, as they are evaluated, at most ``size`` images (and ``LARGEST_BATCH``) at a time."""
        ...

    def epoch(
        self, order: Tensor, size: int, augment: str, seed: int, rows: slice = slice(None), *, short: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels in ``order`` (a CPU tensor of indices), augmented, ``size`` at a time.

        A short rest is left out, unless ``short``; then one image alone joins the batch before it, as in ``batches``.

        The augmentation of the p-th image of the order depends on ``seed`` and p. Only ``rows`` of each batch are made: the
        share of one of several processes that train a network. Raises ``UserError`` for an unknown ``augment``.
        """
        ...

    def held(self) -> "Split":
        """The part that is measured: small enough for memory, always the same images."""
        ...

    def take(self, index: np.ndarray) -> Self:
        """The images and labels at ``index``."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same part, giving its batches on ``device``."""
        ...

    def content(self) -> Iterator[Tensor]:
        """CPU tensors that differ wherever the part does, for a digest."""
        ...


def evaluated_at_once(size: int, image_shape: tuple[int, int, int]) -> int:
    """``size`` images, or as many as ``LARGEST_BATCH`` allows if those are fewer."""
    return min(size, max(1, LARGEST_BATCH // math.prod(image_shape)))


def cuts(num_images: int, size: int) -> list[slice]:
    """Batches of ``size`` images in order, the last one shorter; one image left over joins the batch before it.

    A placebo that gates an image by another one needs two.
    """
    bounds = [*range(0, num_images, size), num_images]
    if num_images % size == 1 and size > 1 and len(bounds) > 2:
        del bounds[-2]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def pieces(num_images: int, size: int, short: bool) -> list[slice]:
    """Batches of ``size`` images in order; the rest is left out, or ``short``."""
    return cuts(num_images, size) if short else [slice(i, i + size) for i in range(0, num_images - size + 1, size)]


class Split:
    """A part in memory: ``images`` (N, C, H, W) as uint8, ``labels`` (N,) as int64, and the pixel value that means 1.0.

    ``rows`` (N,): which of ``images`` (M, C, H, W), that other parts hold too, are this part's; all of them if not given.
    """

    def __init__(self, *, images: Tensor, labels: Tensor, scale: float = 255.0, rows: Tensor | None = None) -> None:
        self.stored, self.rows, self.labels, self.scale = images, rows, labels, scale

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.stored.shape[1:]
        return channels, height, width

    @property
    def num_images(self) -> int:
        """As many as there are labels, unless the part was made wrong."""
        return len(self.stored if self.rows is None else self.rows)

    @property
    def images(self) -> Tensor:
        """All of the part's images, uint8 (N, C, H, W); a copy, if other parts hold more of them."""
        return self.at(slice(None))

    def at(self, index: Tensor | slice | int) -> Tensor:
        """Uint8 images at ``index``."""
        return self.stored[index if self.rows is None else self.rows[index]]

    def pixels(self, index: Tensor | slice | int = slice(None)) -> Tensor:
        """Float32 images in [0, 1] at ``index``."""
        return self.at(index).float() / self.scale

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels in order, ``size`` images at a time, or as many as ``LARGEST_BATCH`` values are (see ``cuts``)."""
        for index in cuts(len(self), evaluated_at_once(size, self.image_shape)):
            yield self.pixels(index), self.labels[index]

    def epoch(
        self,
        order: Tensor,
        size: int,
        augment: str = "none",
        seed: int = 0,
        rows: slice = slice(None),
        *,
        short: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``Part`` says. All that augmentation draws goes to the device once, at the start."""
        order = order.to(self.labels.device, non_blocking=True)
        drawn = None
        if augment != "none":
            chosen, generator = AUGMENTATIONS[augment].build(), torch.Generator().manual_seed(seed)
            drawn = chosen.draw(len(order), self.image_shape[1:], generator).to(order.device, non_blocking=True)
        first, last, _ = rows.indices(size)
        for piece in pieces(len(order), size, short):
            # short batches are not shared out
            at = piece if short else slice(piece.start + first, piece.start + last)
            images = self.at(order[at])
            if drawn is not None:
                images = chosen.apply(images, drawn[at])
            yield images.float() / self.scale, self.labels[order[at]]

    def held(self) -> "Split":
        """The split itself: it is in memory already."""
        return self

    def take(self, index: np.ndarray) -> "Split":
        """The images and labels at ``index``; no image is copied."""
        at = torch.from_numpy(index).to(self.labels.device)
        rows = at if self.rows is None else self.rows[at]
        return Split(images=self.stored, labels=self.labels[at], scale=self.scale, rows=rows)

    def to(self, device: torch.device) -> "Split":
        """The same split on ``device``, with all images that it and others hold (see ``Dataset.to``)."""
        rows = None if self.rows is None else self.rows.to(device)
        return Split(images=self.stored.to(device), labels=self.labels.to(device), scale=self.scale, rows=rows)

    def content(self) -> Iterator[Tensor]:
        """Images and labels."""
        yield from (self.images, self.labels)


class Pixels:
    """Float32 images in [0, 1] of a split, (N, C, H, W): those are converted that are asked for, by index."""

    dtype = torch.float32

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        return self._split.pixels(index)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self._split.stored.device


class Together:
    """Parts of R replicates, of one size and shape, a batch of each per step; all batches have the replicates in front.

    Replicate r sees the same as alone, in its own order and augmented from its own seed. Images in memory are gathered and
    augmented some batches ahead and for all replicates at once, so a step costs few operations, whatever their number.
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
        self, orders: Sequence[Tensor], size: int, augment: str, seeds: Sequence[int], *, short: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (R, size, C, H, W) and labels (R, size) of each step: those that ``Part.epoch`` gives each replicate."""
        splits = [part for part in self.parts if isinstance(part, Split)]
        if len(splits) == len(self.parts) and len({split.scale for split in splits}) == 1:
            yield from _gathered(splits, torch.stack(list(orders)), size, augment, seeds, short)
        else:
            given = zip(self.parts, orders, seeds, strict=True)
            yield from _side_by_side(
                part.epoch(order, size, augment, seed, short=True) if short else part.epoch(order, size, augment, seed)
                for part, order, seed in given
            )


def _side_by_side(epochs: Iterator[Iterator[tuple[Tensor, Tensor]]]) -> Iterator[tuple[Tensor, Tensor]]:
    for batches in zip(*epochs, strict=True):
        pixels, labels = zip(*batches, strict=True)
        yield torch.stack(pixels), torch.stack(labels)


def _gathered(
    splits: Sequence[Split], orders: Tensor, size: int, augment: str, seeds: Sequence[int], short: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """As ``Split.epoch``, for all replicates: uint8 images of some steps, then pixels a step at a time."""
    first, steps = splits[0], pieces(orders.shape[1], size, short)
    device, scale = first.labels.device, first.scale
    drawn = None
    if augment != "none":
        chosen = AUGMENTATIONS[augment].build()
        generators = (torch.Generator().manual_seed(seed) for seed in seeds)
        drawn = torch.stack([chosen.draw(orders.shape[1], first.image_shape[1:], g) for g in generators])
        drawn = drawn.to(device, non_blocking=True)
    orders = orders.to(device, non_blocking=True)
    ahead = max(1, AHEAD // (len(splits) * size * math.prod(first.image_shape)))
    for some in (steps[start : start + ahead] for start in range(0, len(steps), ahead)):
        at = slice(some[0].start, some[-1].stop)
        index = orders[:, at]
        images = torch.stack([split.at(i) for split, i in zip(splits, index, strict=True)])
        labels = torch.stack([split.labels[i] for split, i in zip(splits, index, strict=True)])
        if drawn is not None:
            images = chosen.apply(images.flatten(0, 1), drawn[:, at].flatten(0, 1)).view_as(images)
        lengths = [step.stop - step.start for step in some]
        for pixels, marked in zip(torch.split(images, lengths, 1), torch.split(labels, lengths, 1), strict=True):
            yield pixels.float() / scale, marked
