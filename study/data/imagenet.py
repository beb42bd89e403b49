"""ImageNet and Tiny ImageNet. Labels of both ``test`` parts were never published, so ``val`` is the test split.

ImageNet, ILSVRC2012 (Russakovsky et al. 2015), does not fit in memory: images are decoded as they are needed. Take
``random_resized_crop_flip`` in training; evaluation sees the centre. Statistics, batch-norm re-estimation and the final
training accuracy use the first 2,048 images of a fixed permutation of a part; validation and test accuracy use all of it.
Tiny ImageNet (Le and Yang 2015) takes 1.4 GB as uint8, as floats four times that. It has 500 training images of each class.

Source: https://arxiv.org/abs/1409.0575
"""

from pathlib import Path

from study.data.dataset import Dataset, published
from study.data.files import damaged, ensure
from study.data.listing import Listing, decoded, listing, streamed, train_and
from study.registry import DATASETS

URL = "https://image-net.org/download-images.php"
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_FOLDER = "tiny-imagenet-200"
NUM_IMAGES, NUM_TINY_IMAGES = 1_331_167, 110_000


@DATASETS.register(
    "imagenet",
    **published(URL, (3, 224, 224), ", decoded when needed", num_classes=1000, num_pool=1_281_167, num_test=50_000),
)
def imagenet() -> Dataset:
    """Load the lists of ImageNet's files. Raises ``UserError`` where it is absent or not whole."""
    origin = (
        f"{URL} (ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, for which one signs up), unpacked to one folder a "
        "class as torchvision.datasets.ImageNet does it"
    )
    folder = ensure("imagenet", ["imagenet/train", "imagenet/val"], origin, None) / "imagenet"
    pool, test = train_and("val", "imagenet", folder)
    pool.check_whole(len(pool) + len(test), NUM_IMAGES)
    return streamed(pool, test)


@DATASETS.register(
    "tiny_imagenet", **published(TINY_URL, (3, 64, 64), num_classes=200, num_pool=100_000, num_test=10_000)
)
def tiny_imagenet() -> Dataset:
    """Load Tiny ImageNet. Raises ``UserError`` where it is absent and cannot be downloaded, or is not whole."""

    def download(root: Path) -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        download_and_extract_archive(TINY_URL, str(root), filename=f"{TINY_FOLDER}.zip", md5=TINY_MD5)

    files = [f"{TINY_FOLDER}/train", f"{TINY_FOLDER}/val"]
    folder = ensure("tiny_imagenet", files, f"{TINY_URL} (md5 {TINY_MD5})", download) / TINY_FOLDER
    pool = listing("tiny_imagenet", folder, "train")
    test = _annotated(pool)
    pool.check_whole(len(pool) + len(test), NUM_TINY_IMAGES)
    return decoded(pool, test)


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
