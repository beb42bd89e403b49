"""Datasets of image files, one folder per class: listed, split, and only then decoded into memory or streamed.

``image_folder`` is images of one's own, in memory at 3x64x64, ``image_folder_32`` the same at 3x32x32, and so on for any
size; ``image_folder_224`` is at 3x224x224, decoded when needed.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from study.data.dataset import Dataset, stratified, whole
from study.data.decoding import shown
from study.data.files import damaged, ensure
from study.data.parts import Split
from study.data.pictures import SIZE, read_images
from study.data.stream import StreamedSplit
from study.errors import UserError
from study.registry import DATASETS

# What file managers, archives and storage systems leave beside images; so does everything whose name begins with a dot.
LEFT_OVERS = frozenset(
    ("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "__pycache__", "lost+found",
     "system volume information")
)  # fmt: skip
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# Larger images are streamed.
SIZES = range(8, 257)
TEST_SEED = 0
TEST_SHARE = 0.2
URL = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html"
# Mean and deviation of ImageNet's training images, as in torchvision's models.
MOMENTS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Listing:
    """Files below ``folder`` of the dataset ``name``, each with its label: the place of its class in ``classes``."""

    name: str
    folder: Path
    classes: list[str]
    files: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.files)

    def take(self, index: np.ndarray) -> "Listing":
        """The files at ``index``."""
        files, labels = [self.files[at] for at in index], [self.labels[at] for at in index]
        return Listing(self.name, self.folder, self.classes, files, labels)

    def held_out(self, num_test: int) -> tuple["Listing", "Listing"]:
        """Pool and test, stratified and fixed for good. Raises ``UserError`` for a class too small for a part of each."""
        pool, test = map(self.take, stratified(np.array(self.labels), num_test, TEST_SEED))
        for label, kind in enumerate(self.classes):
            if label not in pool.labels or label not in test.labels:
                raise UserError(
                    f"dataset {self.name} in {self.folder}: class {kind!r} has too few images "
                    f"({self.labels.count(label)}) for a test split of {num_test} of {len(self)}: add some, or a folder "
                    "test beside train"
                )
        return pool, test

    def check_whole(self, found: int, expected: int) -> None:
        """Raise ``UserError`` unless as many images were ``found`` as were published."""
        if found != expected:
            raise damaged(self.name, self.folder, UserError(f"{found:,} images instead of {expected:,}"))


def decoded(pool: Listing, test: Listing, *, size: int = SIZE) -> Dataset:
    """A dataset in memory, 3 x ``size`` x ``size``. Raises ``UserError`` for a file that is no image."""

    def part(of: Listing) -> Split:
        return read_images(of.name, of.folder, of.files, of.labels, size)

    # the test part first: it is smaller, so a fault in it is told sooner
    tested = part(test)
    return whole(pool.name, pool=part(pool), test=tested, classes=pool.classes)


def streamed(pool: Listing, test: Listing) -> Dataset:
    """A dataset of files, 3x224x224 when they are read, normalised by ImageNet's moments."""

    def part(of: Listing) -> StreamedSplit:
        files, labels = np.array([os.fsencode(file) for file in of.files]), torch.tensor(of.labels, dtype=torch.int64)
        return StreamedSplit(name=of.name, folder=of.folder, files=files, labels=labels)

    return whole(
        pool.name,
        pool=part(pool),
        test=part(test),
        classes=pool.classes,
        moments=MOMENTS,
    )


def train_and(part: str, name: str, folder: Path) -> tuple[Listing, Listing]:
    """The images in ``folder``'s ``train`` and ``part``. Raises ``UserError`` where their classes differ."""
    train, other = listing(name, folder, "train"), listing(name, folder, part)
    if train.classes != other.classes:
        odd = sorted(set(train.classes) ^ set(other.classes))[0]
        raise UserError(f"dataset {name} in {folder}: class {odd!r} is in one of train and {part} only")
    return train, other


def listing(name: str, folder: Path, part: str, leave_out: Collection[str] = ()) -> Listing:
    """The images in ``folder / part``: its subfolders are the classes, sorted, but for those to ``leave_out``.

    Files of a class lie at any depth, also in linked folders, and come in sorted order. Hidden files and folders, and what
    systems leave behind (``LEFT_OVERS``), are no part of it. Raises ``UserError`` for an empty class, fewer than two, or a
    link that leads nowhere.
    """
    top = folder / part
    try:
        inside = [entry.name for entry in os.scandir(top) if _is_wanted(entry.name) and _is_folder(entry)]
        classes = sorted(set(inside) - set(leave_out))
        return _listed(name, folder, part, classes)
    except OSError as error:
        raise damaged(name, top, error) from None


def _listed(name: str, folder: Path, part: str, classes: list[str]) -> Listing:
    top = folder / part
    files: list[str] = []
    labels: list[int] = []
    for label, kind in enumerate(classes):
        there = list(_images((part, kind), top / kind, frozenset()))
        if not there:
            raise UserError(f"dataset {name} in {top}: class {shown(kind)!r} has no image ({', '.join(ENDINGS)})")
        files += ["/".join(steps) for steps in sorted(there)]
        labels += [label] * len(there)
    if len(classes) < 2:
        raise UserError(f"dataset {name} in {top}: needs two classes or more, one folder each")
    return Listing(name, folder, classes, files, labels)


def _images(steps: tuple[str, ...], folder: Path, above: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """Image files in ``folder`` and below, as ``steps`` and their own; a link to a folder ``above`` it is not followed."""
    here = os.path.realpath(folder)
    if here in above:
        return
    for entry in os.scandir(folder):
        if not _is_wanted(entry.name):
            continue
        if _is_folder(entry):
            yield from _images((*steps, entry.name), Path(entry.path), above | {here})
        elif entry.name.lower().endswith(ENDINGS):
            yield *steps, entry.name


def _is_wanted(name: str) -> bool:
    return name[0] != "." and name.lower() not in LEFT_OVERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether ``entry`` is a folder, or a link to one. Raises ``OSError`` for a link that leads nowhere."""
    if entry.is_symlink() and not Path(entry.path).exists():
        raise OSError(f"{shown(entry.name)} is a link that leads nowhere")
    return entry.is_dir()


@DATASETS.register_sizes("image_folder_", SIZES, formula="image_folder, resized to 3x{size}x{size}", source=URL)
@DATASETS.register(
    "image_folder",
    formula="images of your own, one folder a class, resized to 3x64x64; image_folder_48: to 3x48x48, and so on",
    source=URL,
)
def image_folder(name: str = "image_folder", size: int = SIZE) -> Dataset:
    """Load ``image_folder/train/CLASS/*`` and ``image_folder/test/CLASS/*`` of the data root.

    Without a ``test`` folder a stratified fifth of ``train`` is the test split, the same in every study. A data root holds
    one such folder (or a link to it): point ``FMM_STUDY_DATA`` elsewhere for another. Raises ``UserError`` where it is
    absent, a class has no image or too few, or the two parts' classes differ. ``name``, ``size``: the dataset's, and the
    images' (``image_folder_48``, 48).
    """
    pool, test = _parts(name)
    return decoded(pool, test, size=size)


@DATASETS.register("image_folder_224", formula="images of your own at 3x224x224, decoded when needed", source=URL)
def image_folder_224() -> Dataset:
    """The same folder as ``image_folder``, streamed; normalised by ImageNet's moments. Raises ``UserError`` as it does."""
    pool, test = _parts("image_folder_224")
    return streamed(pool, test)


def _parts(name: str) -> tuple[Listing, Listing]:
    yours = "you: one folder a class with its images, and the same under image_folder/test if there is a test split"
    folder = ensure(name, ["image_folder/train"], yours, None) / "image_folder"
    if (folder / "test").is_dir():
        return train_and("test", name, folder)
    train = listing(name, folder, "train")
    return train.held_out(round(len(train) * TEST_SHARE))
