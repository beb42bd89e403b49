"""A part of a dataset whose images are files, decoded as they are needed.

Processes decode and augment ahead of the training, ``$FMM_STUDY_LOADERS`` for each trial (``study.data.decoding``). An image
depends on its file, the epoch's seed and its place in the epoch's order.
"""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.data.augment import RESIZED_CROP, Augmentation
from study.data.decoding import Decoder, num_loaders, open_rgb
from study.data.files import damaged, is_own
from study.data.parts import Split, cuts, evaluated_at_once, pieces
from study.registry import AUGMENTATIONS
from study.seeding import derive_seed

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
        self,
        order: Tensor,
        size: int,
        augment: str = "none",
        seed: int = 0,
        rows: slice = slice(None),
        *,
        short: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``Part`` says; the p-th image is augmented from hash(``seed``, p). Files of other rows are not opened."""
        chosen: Augmentation = AUGMENTATIONS[augment].build()
        steps = pieces(len(order), size, short)
        order = order[: steps[-1].stop if steps else 0]
        marked = self.labels[order.to(self.labels.device, non_blocking=True)]
        labels = [marked[step] for step in steps]
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
        return replace(
            self, files=self.files[index], labels=self.labels[torch.from_numpy(index).to(self.labels.device)]
        )

    def to(self, device: torch.device) -> "StreamedSplit":
        """The same split, giving its batches on ``device``."""
        return replace(self, labels=self.labels.to(device))

    def content(self) -> Iterator[Tensor]:
        """Names of files, padded with zero bytes (N, longest), and labels. What is in the files is not read."""
        yield torch.from_numpy(np.ascontiguousarray(self.files).view(np.uint8).reshape(len(self), -1))
        yield self.labels

    def file_sizes(self) -> np.ndarray:
        """Bytes of each file, int64 (N,). Raises ``UserError`` for one that is gone."""
        try:
            return np.array([(self.folder / os.fsdecode(file)).stat().st_size for file in self.files], dtype=np.int64)
        except OSError as error:
            raise damaged(self.name, self.folder, error) from None

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
        decoder = Decoder(
            self.name, self.folder, self.files, _Framing(augmentation or Augmentation(), seed),
            functools.partial(open_rgb, upright=is_own(self.name)),
        )  # fmt: skip
        return decoder.batches(
            # a list of (place in the order, image) is what a process gets for a batch
            (list(enumerate(order[at].tolist(), at.start))[rows] for at in batches),
            min(num_loaders(), len(batches)) if len(batches) > 1 else 0,
            pin_memory=self.labels.is_cuda,
        )


@dataclass(frozen=True)
class _Framing:
    """A photograph (PIL) cut to size and augmented from hash(``seed``, place): uint8 (3, H, W)."""

    augmentation: Augmentation
    seed: int

    def __call__(self, photograph: Any, place: int) -> Tensor:
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
