"""Image files decoded into memory, once, and kept beside the data for the next process."""

import errno
import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.atomic import check_archive, replacing
from study.data.files import damaged
from study.data.parts import Split
from study.errors import StorageError

SIZE = 64
# What Pillow raises for a file that is missing, is no image or is cut short.
UNREADABLE = (OSError, SyntaxError, ValueError)
# A folder that may only be read, or a full disk: every process then decodes for itself.
_NOT_KEPT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def open_rgb(file: Path) -> Any:
    """The image in ``file`` as Pillow's, in RGB. Raises one of ``UNREADABLE``."""
    from PIL import Image  # a dependency of torchvision

    with Image.open(file) as image:
        return image.convert("RGB")


def read_images(name: str, folder: Path, files: Sequence[str], labels: Sequence[int]) -> Split:
    """``files`` (below ``folder``) as one split of RGB images of 3x64x64, by antialiased bilinear resizing.

    Raises ``UserError`` for a file that is no image.
    """
    from PIL import Image

    digest = hashlib.blake2b(f"rgb bilinear {SIZE}".encode(), digest_size=8)
    try:
        for file in files:
            digest.update(f"{file}\0{(folder / file).stat().st_size}\0".encode())
        kept = folder / f".fmm-study-{digest.hexdigest()}.pt"
        images = _kept(kept, len(files))
        if images is None:
            images = torch.empty((len(files), 3, SIZE, SIZE), dtype=torch.uint8)
            for row, file in enumerate(files):
                rgb = open_rgb(folder / file)
                if rgb.size != (SIZE, SIZE):
                    rgb = rgb.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
                images[row] = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
            _keep(images, kept)
    except UNREADABLE as error:
        raise damaged(name, folder, error) from None
    return Split(images=images, labels=torch.tensor(labels, dtype=torch.int64))


def _kept(path: Path, num_images: int) -> Tensor | None:
    """The images at ``path``; ``None``, so that they are decoded again, if there are none or the file is damaged."""
    try:
        check_archive(path)
        images = torch.load(path, weights_only=True)
    except (FileNotFoundError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:  # torch looks for the end of a file that is cut short before its start
            raise
        return None
    good = isinstance(images, Tensor) and images.shape == (num_images, 3, SIZE, SIZE) and images.dtype == torch.uint8
    return images if good else None


def _keep(images: Tensor, path: Path) -> None:
    try:
        # given a path, torch would raise what says nothing of the cause
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save(images, file)
    except StorageError as error:
        if error.errno not in _NOT_KEPT:
            raise
