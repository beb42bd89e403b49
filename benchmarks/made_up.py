"""A plug-in for ``trials_per_hour --scale cifar``: images of CIFAR-10's number and shape, with nothing to download."""

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
    return Dataset(
        name="made_up_cifar",
        pool=_draw(50_000, 1),
        test=_draw(10_000, 2),
        num_val=5_000,
        num_classes=10,
        mean=(0.5, 0.5, 0.5),
        deviation=(0.25, 0.25, 0.25),
    )
