"""Image files decoded into memory, once, and kept beside the data for the next process.

What is kept goes by each file's name, size and times of change (of its content and of its entry, which no copy can preserve),
so images that were rewritten are decoded anew. Processes of a host share it: it is mapped, not read.
"""

import contextlib
import errno
import functools
import hashlib
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.atomic import check_archive, replacing
from study.data.decoding import Decoder, num_loaders, open_rgb
from study.data.files import damaged, is_own, tell
from study.data.parts import Split, cuts
from study.errors import StorageError

SIZE = 64
# A folder that may only be read, or a full disk: every process then decodes for itself.
_NOT_KEPT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
# Fewer images than these are decoded before processes would have started.
_FEW = 2000
_AT_ONCE = 64
# Seconds between lines that tell how far it is.
_TOLD = 5.0


def read_images(name: str, folder: Path, files: Sequence[str], labels: Sequence[int], size: int = SIZE) -> Split:
    """``files`` (below ``folder``) as one split of RGB images of 3 x ``size`` x ``size``, by antialiased bilinear resizing.

    Raises ``UserError`` for a file that is no image.
    """
    upright = is_own(name)
    digest = hashlib.blake2b(f"rgb bilinear {size} upright {upright}".encode(), digest_size=8)
    try:
        for file in files:
            known = (folder / file).stat()
            digest.update(os.fsencode(file) + f"\0{known.st_size}\0{known.st_mtime_ns}\0{known.st_ctime_ns}\0".encode())
        kept, shape = folder / f".fmm-study-{digest.hexdigest()}.pt", (len(files), 3, size, size)
        images = _kept(kept, shape)
        if images is None:
            with _alone(folder):
                images = _kept(kept, shape)  # by another process meanwhile
                if images is None:
                    images = _decoded(name, folder, files, shape, upright=upright)
                    if _keep(images, kept):
                        del images
                        images = _kept(kept, shape)
    except (OSError, StorageError) as error:
        raise damaged(name, folder, error) from None
    assert images is not None
    return Split(images=images, labels=torch.tensor(labels, dtype=torch.int64))


def _decoded(name: str, folder: Path, files: Sequence[str], shape: tuple[int, ...], *, upright: bool) -> Tensor:
    decoder = Decoder(
        name, folder, np.array([os.fsencode(file) for file in files]), functools.partial(_squashed, size=shape[-1]),
        functools.partial(open_rgb, upright=upright),
    )  # fmt: skip
    images, at = torch.empty(shape, dtype=torch.uint8), cuts(len(files), _AT_ONCE)
    batches = [[(index, index) for index in range(part.start, part.stop)] for part in at]
    told, began = time.monotonic(), time.monotonic()
    for part, batch in zip(at, decoder.batches(batches, 0 if len(files) < _FEW else num_loaders()), strict=True):
        images[part] = batch
        now = time.monotonic()
        if now - told > _TOLD or (told > began and part.stop == len(files)):
            told = now
            tell(f"dataset {name}: {part.stop:,} of {len(files):,} images are decoded")
    return images


def _squashed(photograph: Any, place: int, *, size: int) -> Tensor:
    """The whole photograph (PIL) as uint8 (3, size, size)."""
    from PIL import Image

    if photograph.size != (size, size):
        photograph = photograph.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(photograph)).permute(2, 0, 1)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Meanwhile no other process decodes images of ``folder``; where nothing can be locked, each does for itself."""
    from filelock import FileLock  # a dependency of torch

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):
            stack.enter_context(FileLock(folder / ".fmm-study.lock"))
        yield


def _kept(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The images at ``path``, mapped; ``None``, so that they are decoded again, if there are none or the file is damaged."""
    try:
        check_archive(path)
        images = torch.load(path, weights_only=True, mmap=True)
    except (FileNotFoundError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:  # torch looks for the end of a file that is cut short before its start
            raise
        return None
    good = isinstance(images, Tensor) and images.shape == shape and images.dtype == torch.uint8
    return images if good else None


def _keep(images: Tensor, path: Path) -> bool:
    """Whether ``images`` could be kept at ``path``. Raises ``StorageError`` where the disk is at fault."""
    try:
        # given a path, torch would raise what says nothing of the cause
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save(images, file)
    except StorageError as error:
        if error.errno not in _NOT_KEPT:
            raise
        return False
    return True
