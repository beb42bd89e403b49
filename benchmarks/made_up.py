"""A plug-in for ``trials_per_hour --scale cifar``: images of CIFAR-10's number and shape, with nothing to download.

And a hundredth of them, to try what takes the whole.
"""

import torch

from study.data.dataset import Dataset
from study.data.parts import Split
from study.registry import DATASETS


def _draw(num_images: int, seed: int) -> Split:
    """Of ten classes: each image is its class's mean colour and noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % 10
    colours = torch.randint(64, 192, (10, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    noise = torch.randint(-64, 64, (num_images, 3, 32, 32), generator=generator)
    return Split(images=(colours[labels] + noise).to(torch.uint8), labels=labels)


@DATASETS.register("made_up_cifar", formula="60,000 images 3x32x32, 10 classes", source="benchmarks/made_up.py")
def made_up_cifar() -> Dataset:
    """50,000 images to train and validate on, 10,000 to test."""
    return _made_up("made_up_cifar", 10_000)


@DATASETS.register("made_up_few", formula="600 images 3x32x32, 10 classes", source="benchmarks/made_up.py")
def made_up_few() -> Dataset:
    """500 images to train and validate on, 100 to test."""
    return _made_up("made_up_few", 100)


def _made_up(name: str, num_test: int) -> Dataset:
    return Dataset(
        name=name,
        pool=_draw(5 * num_test, 1),
        test=_draw(num_test, 2),
        num_val=num_test // 2,
        num_classes=10,
        mean=(0.5, 0.5, 0.5),
        deviation=(0.25, 0.25, 0.25),
    )
