"""Tiny ImageNet (Le and Yang 2015), 3x64x64.

Pool: the 100,000 images of ``train`` (500 of each of 200 classes), 10,000 of them for validation; test: the 10,000 of
``val``, since the labels of ``test`` were never published. As uint8 it takes 1.4 GB, as floats four times that.

Source: http://vision.stanford.edu/teaching/cs231n/reports/2015/pdfs/yle_project.pdf
"""

from pathlib import Path

from study.data.dataset import Dataset
from study.data.files import damaged, ensure
from study.data.listing import Listing, decoded, listing
from study.registry import DATASETS

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
NUM_IMAGES = 110_000
FOLDER = "tiny-imagenet-200"


@DATASETS.register(
    "tiny_imagenet",
    formula="110,000 images 3x64x64, 200 classes",
    source=URL,
    image_shape=(3, 64, 64),
    num_classes=200,
    num_pool=100_000,
    num_test=10_000,
)
def tiny_imagenet() -> Dataset:
    """Load Tiny ImageNet. Raises ``UserError`` where it is absent and cannot be downloaded, or is not whole."""

    def download(root: Path) -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        download_and_extract_archive(URL, str(root), filename=f"{FOLDER}.zip", md5=MD5)

    files = [f"{FOLDER}/train", f"{FOLDER}/val"]
    folder = ensure("tiny_imagenet", files, f"{URL} (md5 {MD5})", download) / FOLDER
    pool = listing("tiny_imagenet", folder, "train")
    test = _annotated(pool)
    pool.check_whole(len(pool) + len(test), NUM_IMAGES)
    return decoded(pool, test, accuracy_floor=0.10)


def _annotated(pool: Listing) -> Listing:
    """The images of ``val``, which lie in one folder; a line of its list has file, class, four numbers of its box."""
    known = {kind: label for label, kind in enumerate(pool.classes)}
    where = pool.folder / "val"
    try:
        rows = [line.split("\t")[:2] for line in (where / "val_annotations.txt").read_text().splitlines()]
        files, labels = [f"val/images/{file}" for file, _ in rows], [known[kind] for _, kind in rows]
    except (KeyError, ValueError, OSError) as error:
        raise damaged(pool.name, where, error) from None
    return Listing(pool.name, pool.folder, pool.classes, files, labels)
