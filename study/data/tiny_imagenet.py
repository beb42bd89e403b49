"""http://vision.stanford.edu/teaching/cs231n/reports/2015/pdfs/yle_project.pdf (Le and Yang 2015): Tiny ImageNet, 3x64x64.

Pool: the 100,000 images of ``train`` (500 of each of 200 classes), 10,000 of them for validation; test: the 10,000 of
``val``, for the labels of ``test`` were never published. As uint8 it takes 1.4 GB, and as floats four times that.
"""

from pathlib import Path

from study.data.dataset import Dataset, whole
from study.data.files import damaged, ensure
from study.data.folder import check_whole, listing, read_images
from study.registry import DATASETS

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
NUM_IMAGES = 110_000
FOLDER = "tiny-imagenet-200"


@DATASETS.register("tiny_imagenet", formula="110,000 images 3x64x64, 200 classes", source=URL)
def tiny_imagenet() -> Dataset:
    """Load Tiny ImageNet. Raises ``UserError`` where it is absent and cannot be downloaded, or is not whole."""

    def download(root: Path) -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        download_and_extract_archive(URL, str(root), filename=f"{FOLDER}.zip", md5=MD5)

    files = [f"{FOLDER}/train", f"{FOLDER}/val"]
    folder = ensure("tiny_imagenet", files, f"{URL} (md5 {MD5})", download) / FOLDER
    classes, train_files, train_labels = listing(folder / "train", "tiny_imagenet")
    known = {name: label for label, name in enumerate(classes)}
    try:
        # one line an image: file, class, four numbers of its box
        rows = [line.split("\t")[:2] for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
        test_files = [folder / "val" / "images" / file for file, _ in rows]
        test_labels = [known[name] for _, name in rows]
    except (KeyError, ValueError, OSError) as error:
        raise damaged("tiny_imagenet", folder / "val", error) from None
    check_whole("tiny_imagenet", folder, len(train_files) + len(test_files), NUM_IMAGES)
    test = read_images("tiny_imagenet", folder, test_files, test_labels)
    pool = read_images("tiny_imagenet", folder, train_files, train_labels)
    return whole("tiny_imagenet", pool=pool, test=test, num_classes=len(classes), accuracy_floor=0.10)
