"""ImageNet, ILSVRC2012 (Russakovsky et al. 2015), 1,000 classes, at 3x224x224.

It does not fit in memory: images are decoded as they are needed. Pool: the 1,281,167 images of ``train``, a tenth of them
for validation; test: the 50,000 of ``val``, since the labels of ``test`` were never published. Take
``random_resized_crop_flip`` in training; evaluation sees the centre. Statistics, batch-norm re-estimation and the final
training accuracy use the first 2,048 images of a fixed permutation of a part; validation and test accuracy use all of it.

Source: https://arxiv.org/abs/1409.0575
"""

from study.data.dataset import Dataset
from study.data.files import ensure
from study.data.listing import streamed, train_and
from study.registry import DATASETS

URL = "https://image-net.org/download-images.php"
FOLDER = "imagenet"
NUM_IMAGES = 1_331_167


@DATASETS.register(
    "imagenet",
    formula="1,331,167 images 3x224x224, decoded when needed, 1,000 classes",
    source=URL,
    image_shape=(3, 224, 224),
    num_classes=1000,
    num_pool=1_281_167,
    num_test=50_000,
)
def imagenet() -> Dataset:
    """Load the lists of ImageNet's files. Raises ``UserError`` where it is absent or not whole."""
    origin = (
        f"{URL} (ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, for which one signs up), unpacked to one folder a "
        "class as torchvision.datasets.ImageNet does it"
    )
    folder = ensure("imagenet", [f"{FOLDER}/train", f"{FOLDER}/val"], origin, None) / FOLDER
    pool, test = train_and("val", "imagenet", folder)
    pool.check_whole(len(pool) + len(test), NUM_IMAGES)
    # a thousandth by chance; a ResNet-18 has a fifth of them right after an epoch
    return streamed(pool, test, accuracy_floor=0.05)
