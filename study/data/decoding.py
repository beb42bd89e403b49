"""Image files as RGB of 8 bits, decoded by this process or by several.

An image depends on its file and on what frames it alone, so the number of processes changes nothing. It is
``$FMM_STUDY_LOADERS``, by default the usable cores, eight at most; 0 decodes in the process that asks (and needs no shared
memory, which containers limit).
"""

import contextlib
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from study.data.files import damaged
from study.errors import UserError

LOADERS_VARIABLE = "FMM_STUDY_LOADERS"
MOST_LOADERS = 8
# Of 8 bits a channel; alpha is left out, as by torchvision.
_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}
# Formats whose integers are of 16 bits where Pillow says no more than "I".
_SIXTEEN_BITS = {"PNG", "PPM"}


def num_loaders() -> int:
    """Processes that decode. Raises ``UserError`` for a variable that is no whole number from 0."""
    given = os.environ.get(LOADERS_VARIABLE)
    if not given:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, MOST_LOADERS)
    if not given.isdecimal():
        raise UserError(f"{LOADERS_VARIABLE} = {given!r}: expected a whole number of at least 0")
    return int(given)


def open_rgb(file: Path, *, upright: bool = False) -> Any:
    """The image in ``file`` as Pillow's, in RGB of 8 bits; ``upright``: turned as its EXIF data say.

    Values of 16 bits and floats in [0, 1] are scaled; alpha is left out. Raises what Pillow raises for a file that is
    missing, no image or cut short, and ``ValueError`` for other values and for more than 179 million pixels.
    """
    from PIL import Image, ImageOps  # a dependency of torchvision

    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is no regular file")
    with warnings.catch_warnings():
        # the limit is the size that Pillow refuses, not the half of it that it warns of
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            if upright:
                # damaged EXIF data say nothing
                with contextlib.suppress(Exception):
                    ImageOps.exif_transpose(image, in_place=True)
            return _eight_bits(image)


def _eight_bits(image: Any) -> Any:
    from PIL import Image

    values = None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        values = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
    elif image.mode == "F":
        floats = np.asarray(image)
        low, high = float(floats.min()), float(floats.max())
        if not (low >= 0 and high <= 1):  # NaN too
            raise ValueError(f"its floats are from {low:g} to {high:g}; expected 0 to 1")
        values = np.rint(floats * 255)
    elif image.mode not in _EIGHT_BITS:
        raise ValueError(f"its pixels are of type {image.mode!r}; expected 8 or 16 bits, or floats from 0 to 1")
    if values is not None:
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    image.load()
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True)
class Decoder(Dataset[Any]):
    """``files`` (bytes (N,)) below ``folder``, framed: ``frame`` maps (photograph, place in the order) to uint8 (3, H, W).

    What a process holds. A fault is handed back as its text: an exception would arrive wrapped in the process's trace.
    """

    name: str
    folder: Path
    files: np.ndarray
    frame: Callable[[Any, int], Tensor]
    open: Callable[[Path], Any] = open_rgb

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Tensor | str:
        images = []
        for place, index in keys:
            file = os.fsdecode(self.files[index])
            try:
                images.append(self.frame(self.open(self.folder / file), place))
            except Exception as error:  # noqa: BLE001  Pillow passes on whatever its readers of formats raise
                reason = " ".join(str(error).split()) or type(error).__name__
                return f"{shown(file)}: {reason.replace(str(self.folder / file), 'it')}"
        return torch.stack(images)

    def batches(
        self, batches: Iterable[list[tuple[int, int]]], num_workers: int, *, pin_memory: bool = False
    ) -> Iterator[Tensor]:
        """Uint8 images (n, 3, H, W), in order, of ``batches`` of (place, index). Raises ``UserError`` naming a bad file."""
        loader = DataLoader(
            self,
            batch_sampler=batches,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            pin_memory=pin_memory,
            # it draws a seed for its workers, which use none: not from the global generator
            generator=torch.Generator(),
        )
        for images in loader:
            if isinstance(images, str):
                raise damaged(self.name, self.folder, ValueError(images))
            yield images


def shown(file: str) -> str:
    """A file's name as text, also where it is no UTF-8."""
    return os.fsencode(file).decode(errors="replace")


def _as_it_is(batch: Any) -> Any:
    return batch
