"""SVHN (Netzer et al. 2011): digits cropped from photographs of house numbers, 3x32x32.

Pool: the 73,257 images of ``train``, a tenth of them for validation; test: the 26,032 of ``test``. The 531,131 easier
images of ``extra`` are left out: the data is then of the size of CIFAR's, and fits a device. Label 0 is the digit 0. A
mirrored digit is no digit: take ``pad_crop``, not ``pad_crop_flip``.

Source: http://ufldl.stanford.edu/housenumbers/nips2011_housenumbers.pdf
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from study.data.dataset import Dataset, whole
from study.data.files import damaged, ensure
from study.data.parts import Split
from study.errors import UserError
from study.registry import DATASETS

URL = "http://ufldl.stanford.edu/housenumbers"
PARTS = ("train", "test")


@DATASETS.register(
    "svhn",
    formula="99,289 images 3x32x32, 10 classes",
    source=URL,
    image_shape=(3, 32, 32),
    num_classes=10,
    num_pool=73_257,
    num_test=26_032,
)
def svhn() -> Dataset:
    """Load SVHN. Raises ``UserError`` where it is absent and cannot be downloaded, or SciPy, which reads it, is."""
    if importlib.util.find_spec("scipy") is None:  # torchvision reads the .mat files with it
        raise UserError("dataset svhn is read with SciPy, which is not installed: pip install scipy")
    from torchvision import datasets

    def download(root: Path) -> None:
        for part in PARTS:
            datasets.SVHN(root, split=part, download=True)

    url = ", ".join(f"{address} (md5 {md5})" for address, _, md5 in (datasets.SVHN.split_list[part] for part in PARTS))
    root = ensure("svhn", [f"{part}_32x32.mat" for part in PARTS], url, download)

    def read(part: str) -> Split:
        try:
            data = datasets.SVHN(root, split=part)
        except (RuntimeError, OSError, ValueError) as error:
            raise damaged("svhn", root, error) from None
        images = torch.from_numpy(np.ascontiguousarray(data.data))
        return Split(images=images, labels=torch.from_numpy(data.labels))

    # the largest class has .19 of the test images
    return whole("svhn", pool=read("train"), test=read("test"), num_classes=10, accuracy_floor=0.50)
