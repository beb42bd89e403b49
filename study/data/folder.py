"""Image files of one's own, one folder per class: in memory at 3x64x64, or decoded when needed at 3x224x224."""

import numpy as np

from study.data.dataset import Dataset
from study.data.files import ensure
from study.data.listing import Listing, decoded, listing, streamed, train_and
from study.registry import DATASETS

TEST_SHARE = 0.2
URL = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html"


@DATASETS.register("image_folder", formula="images of your own, resized to 3x64x64, one folder a class", source=URL)
def image_folder() -> Dataset:
    """Load ``image_folder/train/CLASS/*`` and ``image_folder/test/CLASS/*`` of the data root.

    Without a ``test`` folder a stratified fifth of ``train`` is the test split, the same in every study. A data root holds
    one such folder (or a link to it): point ``FMM_STUDY_DATA`` elsewhere for another. Raises ``UserError`` where it is
    absent, a class has no image, or the two parts' classes differ. Floor: the largest class's share and a tenth of the rest.
    """
    pool, test = _parts("image_folder")
    return decoded(pool, test, accuracy_floor=_floor(pool))


@DATASETS.register("image_folder_224", formula="images of your own at 3x224x224, decoded when needed", source=URL)
def image_folder_224() -> Dataset:
    """The same folder as ``image_folder``, streamed; normalised by ImageNet's moments. Raises ``UserError`` as it does."""
    pool, test = _parts("image_folder_224")
    return streamed(pool, test, accuracy_floor=_floor(pool))


def _parts(name: str) -> tuple[Listing, Listing]:
    yours = "you: one folder a class with its images, and the same under image_folder/test if there is a test split"
    folder = ensure(name, ["image_folder/train"], yours, None) / "image_folder"
    if (folder / "test").is_dir():
        return train_and("test", name, folder)
    train = listing(name, folder, "train")
    return train.held_out(round(len(train) * TEST_SHARE))


def _floor(pool: Listing) -> float:
    largest = float(np.bincount(pool.labels).max() / len(pool))
    return largest + (1 - largest) / 10
