"""MNIST and Fashion-MNIST (Xiao et al. 2017): 70,000 images of 1x28x28, 10 classes, as four IDX files, gzipped or not.

They are searched in torchvision's folder under the data root, then, for Fashion-MNIST, in that of Debian's package
``dataset-fashion-mnist``; else torchvision downloads them. Pool: the train files, a tenth of them for validation.

Source: https://arxiv.org/abs/1708.07747
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from study.data.dataset import Dataset, published, whole
from study.data.files import damaged, data_root, ensure
from study.data.parts import Split
from study.errors import UserError
from study.registry import DATASETS

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
# The images of the larger part.
MOST_BYTES = 60_000 * 28 * 28
FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist"
MNIST_URL = "http://yann.lecun.com/exdb/mnist"


@DATASETS.register(
    "fashion_mnist", **published(FASHION_URL, (1, 28, 28), num_classes=10, num_pool=60_000, num_test=10_000)
)
def fashion_mnist() -> Dataset:
    """Load Fashion-MNIST. Raises ``UserError`` where it is absent and cannot be downloaded."""
    hint = "; on Debian and Ubuntu 'apt-get install dataset-fashion-mnist' does as well"
    return _load("fashion_mnist", "FashionMNIST", elsewhere=(DEBIAN,), hint=hint)


@DATASETS.register("mnist", **published(MNIST_URL, (1, 28, 28), num_classes=10, num_pool=60_000, num_test=10_000))
def mnist() -> Dataset:
    """Load MNIST. Raises ``UserError`` where it is absent and cannot be downloaded."""
    return _load("mnist", "MNIST")


def _load(name: str, theirs: str, *, elsewhere: tuple[Path, ...] = (), hint: str = "") -> Dataset:
    """``theirs``: torchvision's name for it."""

    def found() -> list[Path] | None:
        for folder in (data_root() / theirs / "raw", *elsewhere):
            for ending in ("", ".gz"):
                paths = [folder / f"{file}{ending}" for file in FILES]
                if all(path.is_file() for path in paths):
                    return paths
        return None

    paths = found()
    if paths is None:
        from torchvision import datasets

        kind = getattr(datasets, theirs)
        url = f"{kind.mirrors[0]} (gzipped as they are, or not){hint}"
        ensure(name, [f"{theirs}/raw/{file}" for file in FILES], url, lambda root: kind(root, download=True))
        paths = found()
    assert paths is not None  # ensure raises otherwise
    try:
        train_images, train_labels, test_images, test_labels = map(read_idx, paths)
    except (OSError, EOFError, ValueError) as error:
        raise damaged(name, paths[0].parent, error) from None
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise damaged(name, paths[0].parent, UserError("images and labels do not fit each other"))
    return whole(
        name,
        pool=Split(images=train_images.unsqueeze(1), labels=train_labels.long()),
        test=Split(images=test_images.unsqueeze(1), labels=test_labels.long()),
        num_classes=10,
    )


def read_idx(path: Path) -> Tensor:
    """The uint8 array of an IDX file, gzipped if its name ends in ``.gz``. Raises ``ValueError`` for anything else.

    No more is read, or unpacked, than the header says, and that is at most what the largest of these files has. Format: two
    zero bytes, the type (8: uint8), the number of dimensions, each size as a big-endian uint32, the bytes.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:3] != b"\0\0\x08":
            raise ValueError(f"{path.name} is no IDX file of bytes")
        sizes = file.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise ValueError(f"{path.name} is cut short")
        shape = struct.unpack(f">{head[3]}I", sizes)
        expected, told = math.prod(shape), "x".join(map(str, shape[:4]))
        if expected > MOST_BYTES:
            raise ValueError(f"{path.name} says that it holds {told} values; expected {MOST_BYTES:,} at most")
        try:
            data = file.read(expected + 1)
        except zlib.error as error:
            raise ValueError(f"{path.name}: {error}") from None
    if len(data) != expected:
        found = f"{len(data)}" if len(data) < expected else "more"
        raise ValueError(f"{path.name} holds {found} bytes, not those of {told} values")
    return torch.from_numpy(np.frombuffer(data, np.uint8).reshape(shape).copy())
