"""Digits (Alpaydin and Kaynak 1998): 1,797 handwritten digits of 8x8, bundled with scikit-learn.

Pixels are integers from 0 to 16. Test: 360 images, stratified, fixed;
of the other 1,437 a block validates on 357 and trains on 1,080.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from study.data.dataset import Dataset, near_chance, stratified
from study.data.parts import Split
from study.errors import UserError
from study.registry import DATASETS

TEST_SEED = 0
NUM_TEST = 360
NUM_VAL = 357
_FILE = "datasets/data/digits.csv.gz"


@DATASETS.register(
    "digits",
    formula="1,797 images 1x8x8, 10 classes",
    source="https://archive.ics.uci.edu/dataset/80",
    accuracy_floor=near_chance(146 / 1437),
)
def digits() -> Dataset:
    """Load scikit-learn's digits. Raises ``UserError`` where scikit-learn, or its file, is not installed."""
    # from its file, because every worker would need a second to import what ``load_digits`` needs
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("dataset digits comes with scikit-learn, which is not installed: pip install scikit-learn")
    path = Path(package.origin).parent / _FILE
    if not path.is_file():
        raise UserError(
            f"dataset digits is not where scikit-learn has it, {path}: pip install --force-reinstall scikit-learn"
        )
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    labels = np.ascontiguousarray(table[:, -1])
    images = torch.from_numpy(table[:, :-1]).to(torch.uint8).view(-1, 1, 8, 8)
    whole = Split(images=images, labels=torch.from_numpy(labels), scale=16.0)
    pool_index, test_index = stratified(labels, NUM_TEST, TEST_SEED)
    pool = whole.take(pool_index)
    pixels = pool.pixels()
    return Dataset(
        name="digits",
        pool=pool,
        test=whole.take(test_index),
        num_val=NUM_VAL,
        num_classes=10,
        mean=(float(pixels.mean()),),
        deviation=(float(pixels.std()),),
    )
