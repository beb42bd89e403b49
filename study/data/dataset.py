"""Datasets, and their split per block: test fixed, validation carved from the rest by the block's seed.

Small data lies in memory as one uint8 tensor; what is too large for that stays in its files (``study.data.parts``).
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from study.data.files import LONGEST, data_root
from study.data.parts import Part, Split
from study.errors import UserError
from study.registry import DATASETS
from study.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """``pool`` is trained and validated on; ``test`` is fixed.

    ``accuracy_floor``: below it a network has collapsed, unless a specification says otherwise; ``None``: ``near_chance``.
    ``mean`` and ``deviation`` are those of the pool, per channel, in [0, 1] pixel units. ``classes``: their names, if known.
    """

    name: str
    pool: Part
    test: Part
    num_val: int
    num_classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    accuracy_floor: float | None = None
    classes: Sequence[str] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.pool.image_shape

    def to(self, device: torch.device) -> "Dataset":
        """The same images on ``device``: its splits then share one copy there."""
        return replace(self, pool=self.pool.to(device), test=self.test.to(device))


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What one replicate sees."""

    train: Part
    val: Part
    test: Part


# Images whose values are counted together: counting takes eight bytes a value.
COUNTED = 512
Moments = tuple[tuple[float, ...], tuple[float, ...]]


def whole(
    name: str,
    *,
    pool: Part,
    test: Part,
    num_classes: int = 0,
    classes: Sequence[str] = (),
    moments: Moments | None = None,
) -> Dataset:
    """A dataset of these parts: a tenth of the pool for validation, normalised by ``moments``, or the pool's own.

    ``num_classes``, or the names of the ``classes``. Raises ``UserError`` for a pool without an image.
    """
    if not len(pool):
        raise UserError(f"dataset {name}: its pool part has no image")
    mean, deviation = moments or channel_moments(pool.held())
    return Dataset(
        name=name,
        pool=pool,
        test=test,
        num_val=len(pool) // 10,
        num_classes=num_classes or len(classes),
        mean=mean,
        # a channel that is the same everywhere is only centred
        deviation=tuple(value or 1.0 for value in deviation),
        classes=classes,
    )


def channel_moments(source: Split) -> Moments:
    """Mean and population standard deviation per channel, in [0, 1] pixel units.

    From counts of the 256 values, in whole numbers: the same on every machine and with any number of threads.
    """
    num_channels = source.image_shape[0]
    counts = np.zeros((num_channels, 256), np.int64)
    for start in range(0, len(source), COUNTED):
        chunk = source.at(slice(start, start + COUNTED))
        for channel in range(num_channels):
            counts[channel] += np.bincount(chunk[:, channel].numpy().ravel(), minlength=256)
    mean, deviation = [], []
    for row in counts.tolist():
        num, total = sum(row), sum(value * count for value, count in enumerate(row))
        squares = sum(value * value * count for value, count in enumerate(row))
        mean.append(total / num / source.scale)
        deviation.append(math.sqrt(num * squares - total * total) / num / source.scale)
    return tuple(mean), tuple(deviation)


def near_chance(largest: float) -> float:
    """An accuracy hardly above that of guessing, where the largest class has the share ``largest`` of the images.

    Twice that share, or a tenth of the way from it to 1 where that is less: .19 of ten equal classes, .02 of a hundred.
    """
    return round(min(2 * largest, largest + (1 - largest) / 10), 4)


def published(
    source: str,
    image_shape: tuple[int, int, int],
    how: str = "",
    *,
    num_classes: int,
    num_pool: int,
    num_test: int,
    largest: float = 0.0,
) -> dict[str, Any]:
    """What a dataset that is always the same is registered with: its facts, and a formula of them, with ``how`` it is read.

    ``largest``: the largest class's share of the pool, if classes are not equal.
    """
    shape = "x".join(map(str, image_shape))
    return {
        "formula": f"{num_pool + num_test:,} images {shape}{how}, {num_classes:,} classes",
        "source": source,
        "image_shape": image_shape,
        "num_classes": num_classes,
        "num_pool": num_pool,
        "num_test": num_test,
        "accuracy_floor": near_chance(largest or 1 / num_classes),
    }


@functools.cache
def load_dataset(name: str) -> Dataset:
    """Load a registered dataset once per process. Raises ``UserError`` for one that is unknown, absent or unfit."""
    build = DATASETS[name].build
    try:
        dataset: Dataset = build()
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:LONGEST]
        raise UserError(
            f"dataset {name} cannot be loaded from {data_root()}: {type(error).__name__}: {reason}"
        ) from error
    check_dataset(name, dataset)
    return dataset


def check_dataset(name: str, dataset: Dataset) -> None:
    """Raise ``UserError`` unless networks can be trained, validated and tested on ``dataset``, registered as ``name``."""
    if not isinstance(dataset, Dataset):
        raise UserError(f"dataset {name}: gives a {type(dataset).__name__}, not a study.data.Dataset")
    lengths, channels = (len(dataset.mean), len(dataset.deviation)), dataset.image_shape[0]
    if lengths != (channels, channels):
        raise UserError(
            f"dataset {name}: mean and deviation have {lengths[0]} and {lengths[1]} values for images of {channels} channels"
        )
    for role, part in (("pool", dataset.pool), ("test", dataset.test)):
        where, labels = f"dataset {name}: its {role} part", part.labels
        if not len(part):
            raise UserError(f"{where} has no image")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= dataset.num_classes:
            raise UserError(
                f"{where} has the label {high if low >= 0 else low}; expected 0 to {dataset.num_classes - 1}"
            )
        if part.image_shape != dataset.image_shape:
            raise UserError(f"{where} has images of another shape, {part.image_shape}, than its pool")
        if isinstance(part, Split) and (part.stored.dtype != torch.uint8 or part.num_images != len(labels)):
            raise UserError(
                f"{where} has {part.num_images} images of {part.stored.dtype} and {len(labels)} labels; expected uint8, "
                "and as many of both"
            )
    pool = dataset.pool
    if isinstance(pool, Split) and _is_constant(pool):
        raise UserError(f"dataset {name}: all its images have one and the same value everywhere: nothing can be learnt")
    if not all(0 < value < math.inf for value in dataset.deviation):
        raise UserError(f"dataset {name}: deviation is {dataset.deviation}; expected finite numbers above 0")
    if not 0 < dataset.num_val < len(pool):
        raise UserError(
            f"dataset {name} has {len(pool)} images to train and validate on, {dataset.num_val} of them for validation; "
            "expected some for each"
        )
    kinds, counts, quota = _quotas(pool.labels.cpu().numpy(), dataset.num_val)
    for kind, count, held in zip(kinds.tolist(), counts.tolist(), quota.tolist(), strict=True):
        if held == count:
            known = repr(dataset.classes[kind]) if dataset.classes else str(kind)
            raise UserError(
                f"dataset {name}: class {known} has too few images ({count}) to train and to validate on: add some, or leave "
                "it out"
            )


def _is_constant(split: Split) -> bool:
    first = split.at(slice(0, 1)).flatten()[:1]
    starts = range(0, len(split), COUNTED)
    return all(bool((split.at(slice(start, start + COUNTED)) == first).all()) for start in starts)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known without the images, to plan a study before a download: their numbers by role, classes, shape (C, H, W).

    ``accuracy_floor``: of a study that names none; ``None`` where it is not known, of a study that has begun.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_val: int
    num_test: int
    accuracy_floor: float | None = None

    def validated_on(self, validation: str) -> "Facts":
        """The same for a replicate with this setting ``validation``."""
        if validation == "held_out":
            return self
        return replace(self, num_train=self.num_train + self.num_val, num_val=self.num_test)


def dataset_facts(name: str) -> Facts:
    """From the registration (``published``), or else from the loaded images.

    A tenth of the pool is for validation, as in ``whole``. Raises ``UserError`` for an unknown or absent dataset.
    """
    traits = DATASETS[name].traits
    if "num_pool" in traits:
        shape, num_classes, num_pool, num_test = (
            traits[trait] for trait in ("image_shape", "num_classes", "num_pool", "num_test")
        )
        num_val, floor = num_pool // 10, traits["accuracy_floor"]
    else:
        dataset = load_dataset(name)
        shape, num_classes, num_val = dataset.image_shape, dataset.num_classes, dataset.num_val
        num_pool, num_test = len(dataset.pool), len(dataset.test)
        floor = near_chance(largest_share(dataset)) if dataset.accuracy_floor is None else dataset.accuracy_floor
    return Facts(
        image_shape=shape,
        num_classes=num_classes,
        num_train=num_pool - num_val,
        num_val=num_val,
        num_test=num_test,
        accuracy_floor=floor,
    )


def largest_share(dataset: Dataset) -> float:
    """The largest class's share of the pool."""
    return float(np.bincount(dataset.pool.labels.cpu().numpy()).max() / len(dataset.pool))


def unstated_floor(dataset: Dataset) -> float:
    """The accuracy floor of a study on images of one's own that was begun before specifications held floors."""
    largest = largest_share(dataset)
    return largest + (1 - largest) / 10 if dataset.accuracy_floor is None else dataset.accuracy_floor


def split(dataset: Dataset, split_seed: int, validation: str = "held_out") -> Splits:
    """Carve a stratified validation split from the pool; the rest is for training.

    ``validation`` ``test``: nothing is carved, and the test images are what each epoch is validated on.
    """
    if validation == "test":
        return Splits(train=dataset.pool, val=dataset.test, test=dataset.test)
    train, val = stratified(dataset.pool.labels.cpu().numpy(), dataset.num_val, split_seed)
    return Splits(train=dataset.pool.take(train), val=dataset.pool.take(val), test=dataset.test)


def stratified(labels: np.ndarray, num_held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held out), each sorted. Every class gives its share of ``num_held_out``, by largest remainder."""
    generator = np.random.default_rng(derive_seed(seed, "split"))
    classes, _, quota = _quotas(labels, num_held_out)
    held = [generator.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, quota, strict=True)]
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _quotas(labels: np.ndarray, num_held_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, their images, and how many of those are held out."""
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * num_held_out / len(labels)
    quota = np.floor(shares).astype(int)
    # stable: equal remainders go to the lower class
    for index in np.argsort(quota - shares, kind="stable")[: num_held_out - quota.sum()]:
        quota[index] += 1
    return classes, counts, quota
