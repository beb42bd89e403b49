"""Made-up images for tests: class prototypes plus noise, learnable in a step or two."""

import numpy as np
import torch

from study.data.dataset import Dataset, near_chance
from study.data.parts import Split
from study.registry import DATASETS


@DATASETS.register(
    "fake",
    formula="96 images 1x8x8, 4 classes: prototype + noise",
    source="this file",
    accuracy_floor=near_chance(1 / 4),
)
def fake() -> Dataset:
    """64 images to train and validate on, 32 to test."""
    generator = np.random.default_rng(0)
    prototypes = generator.uniform(0, 255, (4, 1, 8, 8))

    def draw(num_images: int) -> Split:
        labels = np.arange(num_images) % 4
        images = (prototypes[labels] + generator.normal(0, 20, (num_images, 1, 8, 8))).clip(0, 255).astype(np.uint8)
        return Split(images=torch.from_numpy(images), labels=torch.from_numpy(labels).long())

    return Dataset(
        name="fake",
        pool=draw(64),
        test=draw(32),
        num_val=16,
        num_classes=4,
        mean=(0.5,),
        deviation=(0.3,),
    )
