"""Caltech-101 (Fei-Fei et al. 2004): 8,677 photographs in 101 classes, resized to 3x64x64.

The background class is left out, as by torchvision and by the authors of 2106.15067, whose 1,736 held-out images are a fifth
of 8,677, stratified, by scikit-learn with ``random_state=42``. Both entries have a fixed test split of that size and rule:

- ``caltech101`` draws it itself, as other datasets do, so that it rests on nothing but this code;
- ``caltech101_authors`` asks scikit-learn, with their seed. Its images are theirs if they listed files in order of class
  and name, as torchvision does; which order they had is not known.

They also chose the epoch on the test split; here 694 of the other 6,941 images are for validation.

Source: https://doi.org/10.22002/D1.20086
"""

import math
from pathlib import Path

import numpy as np

from study.data.dataset import Dataset, published
from study.data.files import ensure
from study.data.listing import Listing, decoded, listing
from study.errors import UserError
from study.registry import DATASETS

URL = "https://data.caltech.edu/records/mzrjq-6wc02"
NUM_IMAGES = 8677
TEST_SHARE = 0.2
AUTHORS_SEED = 42
# the largest class, aeroplanes, has 640 images of the pool
_FACTS = published(URL, (3, 64, 64), num_classes=101, num_pool=6941, num_test=1736, largest=640 / 6941)


@DATASETS.register("caltech101", **_FACTS)
def caltech101() -> Dataset:
    """Load Caltech-101. Raises ``UserError`` where it is absent and cannot be downloaded, or is not whole."""
    listed = _listed("caltech101")
    pool, test = listed.held_out(math.ceil(len(listed) * TEST_SHARE))
    return decoded(pool, test)


_THEIRS = {
    "formula": "caltech101, its test split by scikit-learn's train_test_split, random_state 42",
    "source": "https://scikit-learn.org/stable/modules/generated/sklearn.model_selection.train_test_split.html",
}


@DATASETS.register("caltech101_authors", **_FACTS | _THEIRS)
def caltech101_authors() -> Dataset:
    """Load Caltech-101. Raises ``UserError`` as ``caltech101`` does, and where scikit-learn is not installed."""
    try:
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise UserError(
            "dataset caltech101_authors is split by scikit-learn, which is not installed: pip install scikit-learn"
        ) from None
    listed = _listed("caltech101_authors")
    pool, test = train_test_split(
        np.arange(len(listed)), test_size=TEST_SHARE, random_state=AUTHORS_SEED, stratify=listed.labels
    )
    return decoded(listed.take(np.sort(pool)), listed.take(np.sort(test)))


def _listed(name: str) -> Listing:
    def download(root: Path) -> None:
        from torchvision import datasets

        datasets.Caltech101(root, download=True)

    part = "101_ObjectCategories"
    root = ensure(name, [f"caltech101/{part}"], f"{URL}/files/caltech-101.zip", download)
    found = listing(name, root / "caltech101", part, leave_out=["BACKGROUND_Google"])
    found.check_whole(len(found), NUM_IMAGES)
    return found
