"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), 3x32x32.

Read and downloaded by torchvision, which checks the files' digests before it unpickles them. Pool: the 50,000 training
images, 5,000 of them for validation; test: the 10,000.

Source: https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from study.data.dataset import Dataset, whole
from study.data.files import damaged, ensure
from study.data.parts import Split
from study.registry import DATASETS

URL = "https://www.cs.toronto.edu/~kriz/cifar.html"


@DATASETS.register(
    "cifar10",
    formula="60,000 images 3x32x32, 10 classes",
    source=URL,
    image_shape=(3, 32, 32),
    num_classes=10,
    num_pool=50_000,
    num_test=10_000,
)
def cifar10() -> Dataset:
    """Load CIFAR-10. Raises ``UserError`` where it is absent and cannot be downloaded."""
    return _load("cifar10", "CIFAR10", num_classes=10, floor=0.50)


@DATASETS.register(
    "cifar100",
    formula="60,000 images 3x32x32, 100 classes",
    source=URL,
    image_shape=(3, 32, 32),
    num_classes=100,
    num_pool=50_000,
    num_test=10_000,
)
def cifar100() -> Dataset:
    """Load CIFAR-100. Raises ``UserError`` where it is absent and cannot be downloaded."""
    return _load("cifar100", "CIFAR100", num_classes=100, floor=0.20)


def _load(name: str, theirs: str, *, num_classes: int, floor: float) -> Dataset:
    from torchvision import datasets

    kind: Any = getattr(datasets, theirs)
    names = [file for file, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]
    url = f"{kind.url} (md5 {kind.tgz_md5})"

    def download(root: Path) -> None:
        kind(root, download=True)

    root = ensure(name, [f"{kind.base_folder}/{file}" for file in names], url, download)

    def part(train: bool) -> Split:
        try:
            data = kind(root, train=train)
        except (RuntimeError, OSError) as error:
            raise damaged(name, root / kind.base_folder, error) from None
        images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
        return Split(images=images, labels=torch.tensor(data.targets, dtype=torch.int64))

    return whole(name, pool=part(True), test=part(False), num_classes=num_classes, accuracy_floor=floor)
