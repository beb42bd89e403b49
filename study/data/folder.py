"""https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html: one folder a class, any image files.

Images are decoded once, made RGB and of one size, and kept beside the data as one uint8 tensor for the next process.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from study.data.dataset import Dataset, Split, stratified, take, whole
from study.data.files import damaged, ensure
from study.errors import UserError
from study.registry import DATASETS

SIZE = 64
TEST_SEED = 0
TEST_SHARE = 0.2
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
URL = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html"


@DATASETS.register("image_folder", formula="images of your own, resized to 3x64x64, one folder a class", source=URL)
def image_folder() -> Dataset:
    """Load ``image_folder/train/CLASS/*`` and ``image_folder/test/CLASS/*`` of the data root.

    Without a ``test`` folder a stratified fifth of ``train`` is the test split, the same in every study. A data root holds
    one such folder (or a link to it): point ``FMM_STUDY_DATA`` elsewhere for another. Raises ``UserError`` where it is
    absent, a class has no image, or the two parts' classes differ. Floor: a tenth of the way from the share of the largest
    class to 1.
    """
    yours = "you: one folder a class with its images, and the same under image_folder/test if there is a test split"
    root = ensure("image_folder", ["image_folder/train"], yours, None)
    folder = root / "image_folder"
    classes, files, labels = listing(folder / "train", "image_folder")
    source = read_images("image_folder", folder, files, labels)
    if (folder / "test").is_dir():
        theirs, test_files, test_labels = listing(folder / "test", "image_folder")
        if theirs != classes:
            odd = sorted(set(classes) ^ set(theirs))[0]
            raise UserError(f"dataset image_folder in {folder}: class {odd!r} is in one of train and test only")
        pool, test = source, read_images("image_folder", folder, test_files, test_labels)
    else:
        pool, test = held_out(source, round(len(source) * TEST_SHARE))
    largest = float(np.bincount(pool.labels.numpy()).max() / len(pool))
    floor = largest + (1 - largest) / 10
    return whole("image_folder", pool=pool, test=test, num_classes=len(classes), accuracy_floor=floor)


def held_out(source: Split, num_test: int) -> tuple[Split, Split]:
    """Pool and test, stratified and fixed for good."""
    pool, test = stratified(source.labels.numpy(), num_test, TEST_SEED)
    return take(source, pool), take(source, test)


def listing(folder: Path, name: str) -> tuple[list[str], list[Path], list[int]]:
    """Classes (subfolders, sorted), image files and their labels, in sorted order. Raises ``UserError`` for an empty class."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    files: list[Path] = []
    labels: list[int] = []
    for label, kind in enumerate(classes):
        inside = (folder / kind).rglob("*")
        there = sorted(path for path in inside if path.suffix.lower() in ENDINGS and path.name[0] != ".")
        if not there:
            raise UserError(f"dataset {name} in {folder}: class {kind!r} has no image")
        files += there
        labels += [label] * len(there)
    if len(classes) < 2:
        raise UserError(f"dataset {name} in {folder}: needs two classes or more, one folder each")
    return classes, files, labels


def check_whole(name: str, folder: Path, found: int, expected: int) -> None:
    """Raise ``UserError`` unless ``folder`` holds as many images as were published."""
    if found != expected:
        raise damaged(name, folder, UserError(f"{found:,} images instead of {expected:,}"))


def read_images(name: str, folder: Path, files: Sequence[Path], labels: Sequence[int]) -> Split:
    """``files`` (below ``folder``) as one split of RGB images of 3x64x64, by antialiased bilinear resizing.

    Raises ``UserError`` for a file that is no image.
    """
    digest = hashlib.blake2b(f"rgb bilinear {SIZE}".encode(), digest_size=8)
    try:
        for file in files:
            digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
        kept = folder / f".fmm-study-{digest.hexdigest()}.pt"
        images = _kept(kept, len(files))
        if images is None:
            images = torch.stack([_decode(file) for file in files])
            _keep(images, kept)
    except OSError as error:
        raise damaged(name, folder, error) from None
    return Split(images=images, labels=torch.tensor(labels, dtype=torch.int64))


def _decode(file: Path) -> Tensor:
    from PIL import Image  # a dependency of torchvision

    with Image.open(file) as image:
        rgb = image.convert("RGB")
        if rgb.size != (SIZE, SIZE):
            rgb = rgb.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def _kept(path: Path, num_images: int) -> Tensor | None:
    try:
        images = torch.load(path, weights_only=True)
    except Exception:  # noqa: BLE001  absent, cut short or of another make: decoded again
        return None
    good = isinstance(images, Tensor) and images.shape == (num_images, 3, SIZE, SIZE) and images.dtype == torch.uint8
    return images if good else None


def _keep(images: Tensor, path: Path) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        torch.save(images, partial)
        partial.replace(path)
    except (OSError, RuntimeError):  # a folder that may only be read: decoded anew by every process
        return
