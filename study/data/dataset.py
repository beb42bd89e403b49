"""Datasets, and their split per block: test fixed, validation carved from the rest by the block's seed.

Small data lies in memory as one uint8 tensor; what is too large for that stays in its files (``study.data.parts``).
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.data.parts import Part, Split
from study.registry import DATASETS
from study.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """``pool`` is trained and validated on; ``test`` is fixed. Below ``accuracy_floor`` a network has collapsed.

    A floor is at least twice the share of the largest class, and far below what the smallest network reaches in a few epochs.
    ``mean`` and ``deviation`` are those of the pool, per channel, in [0, 1] pixel units.
    """

    name: str
    pool: Part
    test: Part
    num_val: int
    num_classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    accuracy_floor: float

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.pool.image_shape


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What one replicate sees."""

    train: Part
    val: Part
    test: Part


Moments = tuple[tuple[float, ...], tuple[float, ...]]


def whole(
    name: str, *, pool: Part, test: Part, num_classes: int, accuracy_floor: float, moments: Moments | None = None
) -> Dataset:
    """A dataset of these parts: a tenth of the pool for validation, normalised by ``moments``, or the pool's own."""
    mean, deviation = moments or channel_moments(pool.held())
    return Dataset(
        name=name,
        pool=pool,
        test=test,
        num_val=len(pool) // 10,
        num_classes=num_classes,
        mean=mean,
        deviation=deviation,
        accuracy_floor=accuracy_floor,
    )


def channel_moments(source: Split) -> Moments:
    """Mean and population standard deviation per channel, in [0, 1] pixel units.

    From counts of the 256 values, in whole numbers: the same on every machine and with any number of threads.
    """
    num_channels = source.images.shape[1]
    counts = np.zeros((num_channels, 256), np.int64)
    for start in range(0, len(source), 4096):
        chunk = source.images[start : start + 4096]
        for channel in range(num_channels):
            counts[channel] += np.bincount(chunk[:, channel].numpy().ravel(), minlength=256)
    mean, deviation = [], []
    for row in counts.tolist():
        num, total = sum(row), sum(value * count for value, count in enumerate(row))
        squares = sum(value * value * count for value, count in enumerate(row))
        mean.append(total / num / source.scale)
        deviation.append(math.sqrt(num * squares - total * total) / num / source.scale)
    return tuple(mean), tuple(deviation)


def published(
    source: str, image_shape: tuple[int, int, int], how: str = "", *, num_classes: int, num_pool: int, num_test: int
) -> dict[str, Any]:
    """What a dataset that is always the same is registered with: its facts, and a formula of them, with ``how`` it is read."""
    shape = "x".join(map(str, image_shape))
    return {
        "formula": f"{num_pool + num_test:,} images {shape}{how}, {num_classes:,} classes",
        "source": source,
        "image_shape": image_shape,
        "num_classes": num_classes,
        "num_pool": num_pool,
        "num_test": num_test,
    }


@functools.cache
def load_dataset(name: str) -> Dataset:
    """Load a registered dataset once per process. Raises ``UserError`` for an unknown or absent one."""
    dataset: Dataset = DATASETS[name].build()
    return dataset


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known without the images, to plan a study before a download: their numbers by role, classes, shape (C, H, W)."""

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_val: int
    num_test: int


def dataset_facts(name: str) -> Facts:
    """From the registration (``published``), or else from the loaded images.

    A tenth of the pool is for validation, as in ``whole``. Raises ``UserError`` for an unknown or absent dataset.
    """
    traits = DATASETS[name].traits
    if "num_pool" in traits:
        shape, num_classes, num_pool, num_test = (
            traits[trait] for trait in ("image_shape", "num_classes", "num_pool", "num_test")
        )
        num_val = num_pool // 10
    else:
        dataset = load_dataset(name)
        shape, num_classes, num_val = dataset.image_shape, dataset.num_classes, dataset.num_val
        num_pool, num_test = len(dataset.pool), len(dataset.test)
    return Facts(
        image_shape=shape, num_classes=num_classes, num_train=num_pool - num_val, num_val=num_val, num_test=num_test
    )


def split(dataset: Dataset, split_seed: int) -> Splits:
    """Carve a stratified validation split from the pool; the rest is for training."""
    train, val = stratified(dataset.pool.labels.numpy(), dataset.num_val, split_seed)
    return Splits(train=dataset.pool.take(train), val=dataset.pool.take(val), test=dataset.test)


def stratified(labels: np.ndarray, num_held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held out), each sorted. Every class gives its share of ``num_held_out``, by largest remainder."""
    generator = np.random.default_rng(derive_seed(seed, "split"))
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * num_held_out / len(labels)
    quota = np.floor(shares).astype(int)
    # stable: equal remainders go to the lower class
    for index in np.argsort(quota - shares, kind="stable")[: num_held_out - quota.sum()]:
        quota[index] += 1
    held = [generator.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, quota, strict=True)]
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out
