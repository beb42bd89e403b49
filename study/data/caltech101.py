"""https://doi.org/10.22002/D1.20086 (Fei-Fei et al. 2004): Caltech-101, 8,677 photographs in 101 classes, resized to 3x64x64.

The background class is left out, as by torchvision and by the authors of 2106.15067, whose 1,736 held-out images are a fifth
of 8,677. The test split has that size and is stratified and fixed too, but it is not theirs: theirs is scikit-learn's
shuffle with ``random_state=42`` of a list of files whose order is not known. They also chose the epoch on it; here 694 of
the other 6,941 images are for validation.
"""

import math
from pathlib import Path

from study.data.dataset import Dataset, whole
from study.data.files import ensure
from study.data.folder import TEST_SHARE, check_whole, held_out, listing, read_images
from study.errors import UserError
from study.registry import DATASETS

URL = "https://data.caltech.edu/records/mzrjq-6wc02"
FOLDER = "caltech101/101_ObjectCategories"
NUM_IMAGES = 8677
BACKGROUND = "BACKGROUND_Google"


@DATASETS.register("caltech101", formula="8,677 images 3x64x64, 101 classes", source=URL)
def caltech101() -> Dataset:
    """Load Caltech-101. Raises ``UserError`` where it is absent and cannot be downloaded, or is not whole."""

    def download(root: Path) -> None:
        from torchvision import datasets

        datasets.Caltech101(root, download=True)

    folder = ensure("caltech101", [FOLDER], f"{URL}/files/caltech-101.zip", download) / FOLDER
    classes, files, labels = listing(folder, "caltech101")
    kept = [(file, label) for file, label in zip(files, labels, strict=True) if classes[label] != BACKGROUND]
    # the class left out comes before the others in order of name, so theirs move down by one
    shift = 1 if BACKGROUND in classes else 0
    if shift and classes[0] != BACKGROUND:
        raise UserError(f"dataset caltech101 in {folder}: class {classes[0]!r} is none of Caltech-101's")
    check_whole("caltech101", folder, len(kept), NUM_IMAGES)
    source = read_images("caltech101", folder.parent, [file for file, _ in kept], [label - shift for _, label in kept])
    pool, test = held_out(source, math.ceil(len(source) * TEST_SHARE))
    # the largest class, aeroplanes, has .09
    return whole("caltech101", pool=pool, test=test, num_classes=len(classes) - shift, accuracy_floor=0.25)
