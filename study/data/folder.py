"""https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html: one folder a class, any image files.

In memory at 3x64x64, or, for folders that are too large for that or should be seen at full size, as files that are decoded
when they are needed, at 3x224x224.
"""

import numpy as np

from study.data.dataset import Dataset, whole
from study.data.files import ensure
from study.data.imagenet import DEVIATION, MEAN
from study.data.listing import Listing, listing
from study.errors import UserError
from study.registry import DATASETS

TEST_SHARE = 0.2
URL = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html"


@DATASETS.register("image_folder", formula="images of your own, resized to 3x64x64, one folder a class", source=URL)
def image_folder() -> Dataset:
    """Load ``image_folder/train/CLASS/*`` and ``image_folder/test/CLASS/*`` of the data root.

    Without a ``test`` folder a stratified fifth of ``train`` is the test split, the same in every study. A data root holds
    one such folder (or a link to it): point ``FMM_STUDY_DATA`` elsewhere for another. Raises ``UserError`` where it is
    absent, a class has no image, or the two parts' classes differ. Floor: a tenth of the way from the share of the largest
    class to 1.
    """
    pool, test = _parts("image_folder")
    # the test part first: it is the smaller one, and a fault in it is told sooner
    tested, pooled = test.decoded(), pool.decoded()
    return whole("image_folder", pool=pooled, test=tested, num_classes=len(pool.classes), accuracy_floor=_floor(pool))


@DATASETS.register("image_folder_224", formula="images of your own at 3x224x224, decoded when needed", source=URL)
def image_folder_224() -> Dataset:
    """The same folder as ``image_folder``, streamed; normalised by ImageNet's moments. Raises ``UserError`` as it does."""
    pool, test = _parts("image_folder_224")
    return Dataset(
        name="image_folder_224",
        pool=pool.streamed(),
        test=test.streamed(),
        num_val=len(pool) // 10,
        num_classes=len(pool.classes),
        mean=MEAN,
        deviation=DEVIATION,
        accuracy_floor=_floor(pool),
    )


def _parts(name: str) -> tuple[Listing, Listing]:
    yours = "you: one folder a class with its images, and the same under image_folder/test if there is a test split"
    folder = ensure(name, ["image_folder/train"], yours, None) / "image_folder"
    train = listing(name, folder, "train")
    if not (folder / "test").is_dir():
        return train.held_out(round(len(train) * TEST_SHARE))
    test = listing(name, folder, "test")
    if test.classes != train.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        raise UserError(f"dataset {name} in {folder}: class {odd!r} is in one of train and test only")
    return train, test


def _floor(pool: Listing) -> float:
    largest = float(np.bincount(pool.labels).max() / len(pool))
    return largest + (1 - largest) / 10
