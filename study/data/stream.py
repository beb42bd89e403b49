"""A part of a dataset whose images are files, decoded as they are needed.

Worker processes decode and augment ahead of the training. An image depends on its file, the epoch's seed and its place in the
epoch's order, so the number of workers changes nothing. It is ``$FMM_STUDY_LOADERS`` per trial, by default the usable cores,
eight at most; 0 decodes in the trial's own process (and needs no shared memory, which containers limit).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from study.data.augment import RESIZED_CROP, Augmentation
from study.data.parts import Split, cuts, evaluated_at_once
from study.data.pictures import UNREADABLE, open_rgb
from study.errors import UserError
from study.registry import AUGMENTATIONS
from study.seeding import derive_seed

LOADERS_VARIABLE = "FMM_STUDY_LOADERS"
MOST_LOADERS = 8
SIZE = 224
# The shorter side before the centre crop of SIZE: 256, as torchvision's reference evaluation has it.
RESIZED = 256
# Two of a class make a same-class pair: of 1,000 classes so many images have some 2,000 such pairs.
NUM_HELD = 2048
HELD_SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedSplit:
    """``files`` below ``folder`` as bytes (N,), labels (N,) as int64 on the device where batches are wanted.

    Images are RGB of ``SIZE`` x ``SIZE``: a random box of the photograph, where the augmentation starts with
    ``RESIZED_CROP``; the centre crop after resizing the shorter side to ``RESIZED`` in any other case, and in evaluation.
    Other augmentations work on what is cut out. What is read raises ``UserError`` for a file that is no image.
    """

    name: str
    folder: Path
    files: np.ndarray
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return 3, SIZE, SIZE

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels in order, at most ``size`` images and ``LARGEST_BATCH`` values at a time."""
        size = evaluated_at_once(size, self.image_shape)
        for at, images in zip(cuts(len(self), size), self._decoded(torch.arange(len(self)), size), strict=True):
            yield self._floats(images), self.labels[at]

    def epoch(
        self, order: Tensor, size: int, augment: str = "none", seed: int = 0, rows: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``Part`` says; the p-th image is augmented from hash(``seed``, p). Files of other rows are not opened."""
        chosen: Augmentation = AUGMENTATIONS[augment].build()
        order = order[: len(order) // size * size]
        labels = torch.split(self.labels[order.to(self.labels.device, non_blocking=True)], size)
        for images, batch_labels in zip(self._decoded(order, size, chosen, seed, rows), labels, strict=True):
            yield self._floats(images), batch_labels[rows]

    def held(self) -> Split:
        """The first ``NUM_HELD`` images of a fixed permutation (all, if there are no more), in memory as uint8."""
        generator = torch.Generator().manual_seed(derive_seed(HELD_SEED, "held"))
        index = torch.randperm(len(self), generator=generator)[:NUM_HELD]
        images = torch.empty((len(index), *self.image_shape), dtype=torch.uint8, device=self.labels.device)
        size = evaluated_at_once(NUM_HELD, self.image_shape)
        for at, batch in zip(cuts(len(index), size), self._decoded(index, size), strict=True):
            images[at] = batch
        return Split(images=images, labels=self.labels[index.to(self.labels.device)])

    def take(self, index: np.ndarray) -> "StreamedSplit":
        """The files and labels at ``index``."""
        return replace(self, files=self.files[index], labels=self.labels[torch.from_numpy(index)])

    def to(self, device: torch.device) -> "StreamedSplit":
        """The same split, giving its batches on ``device``."""
        return replace(self, labels=self.labels.to(device))

    def content(self) -> Iterator[Tensor]:
        """Names of files, padded with zero bytes (N, longest), and labels. What is in the files is not read."""
        yield torch.from_numpy(np.ascontiguousarray(self.files).view(np.uint8).reshape(len(self), -1))
        yield self.labels

    def _floats(self, images: Tensor) -> Tensor:
        return images.to(self.labels.device, non_blocking=True).float() / 255

    def _decoded(
        self,
        order: Tensor,
        size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rows: slice = slice(None),
    ) -> Iterator[Tensor]:
        """Uint8 images (n, 3, H, W) on the CPU, in order, from as many processes as there are batches to share out."""
        batches = cuts(len(order), size)
        loader = DataLoader(
            _Decoder(self.folder, self.files, augmentation or Augmentation(), seed),
            # a list of (place in the order, image) is what a worker gets for a batch
            batch_sampler=(list(enumerate(order[at].tolist(), at.start))[rows] for at in batches),
            collate_fn=_as_it_is,
            num_workers=min(num_loaders(), len(batches)) if len(batches) > 1 else 0,
            pin_memory=self.labels.is_cuda,
            # it draws a seed for its workers, which use none: not from the global generator
            generator=torch.Generator(),
        )
        for images in loader:
            if isinstance(images, str):
                raise UserError(
                    f"dataset {self.name} in {self.folder} cannot be read ({images}): fetch this file again"
                )
            yield images


def num_loaders() -> int:
    """Worker processes of a trial. Raises ``UserError`` for a variable that is no whole number from 0."""
    given = os.environ.get(LOADERS_VARIABLE)
    if not given:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, MOST_LOADERS)
    if not given.isdecimal():
        raise UserError(f"{LOADERS_VARIABLE} = {given!r}: expected a whole number of at least 0")
    return int(given)


class _Decoder(Dataset[Any]):
    """What a worker holds. A fault is handed back as its text: an exception would arrive wrapped in the worker's trace."""

    def __init__(self, folder: Path, files: np.ndarray, augmentation: Augmentation, seed: int) -> None:
        self.folder, self.files, self.augmentation, self.seed = folder, files, augmentation, seed

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Tensor | str:
        images = torch.empty((len(keys), 3, SIZE, SIZE), dtype=torch.uint8)
        for row, (place, index) in enumerate(keys):
            file = os.fsdecode(self.files[index])
            try:
                images[row] = self._framed(open_rgb(self.folder / file), place)
            except UNREADABLE as error:
                return f"{file}: {' '.join(str(error).split())}"
        return images

    def _framed(self, photograph: Any, place: int) -> Tensor:
        """The photograph (PIL) cut to size and augmented: uint8 (3, H, W)."""
        from torchvision.transforms.v2 import functional

        steps, square = self.augmentation.steps, [SIZE, SIZE]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, place))
        if steps and steps[0] == RESIZED_CROP:
            width, height = photograph.size
            (box,) = steps[0].draw(1, (height, width), generator).tolist()
            photograph, steps = functional.resized_crop(photograph, *box, square), steps[1:]
        else:
            photograph = functional.center_crop(functional.resize(photograph, [RESIZED]), square)
        image, rest = functional.pil_to_tensor(photograph)[None], Augmentation(steps)
        return rest.apply(image, rest.draw(1, (SIZE, SIZE), generator))[0]


def _as_it_is(batch: Any) -> Any:
    return batch
