"""https://arxiv.org/abs/1409.0575 (Russakovsky et al. 2015): ImageNet, ILSVRC2012, 1,000 classes, seen at 3x224x224.

It does not fit in memory: images are decoded as they are needed. Pool: the 1,281,167 images of ``train``, a tenth of them
for validation; test: the 50,000 of ``val``, for the labels of ``test`` were never published. Take
``random_resized_crop_flip`` in training; evaluation sees the centre. Statistics, batch-norm re-estimation and the final
training accuracy use the first 2,048 images of a fixed permutation of a part; validation and test accuracy use all of it.
"""

from study.data.dataset import Dataset
from study.data.files import ensure
from study.data.listing import listing
from study.errors import UserError
from study.registry import DATASETS

URL = "https://image-net.org/download-images.php"
FOLDER = "imagenet"
NUM_IMAGES = 1_331_167
# Of the training images, as torchvision's models have them:
# https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


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
    pool, test = listing("imagenet", folder, "train"), listing("imagenet", folder, "val")
    if pool.classes != test.classes:
        odd = sorted(set(pool.classes) ^ set(test.classes))[0]
        raise UserError(f"dataset imagenet in {folder}: class {odd!r} is in one of train and val only")
    pool.check_whole(len(pool) + len(test), NUM_IMAGES)
    # a thousandth by chance; a ResNet-18 has a fifth of them right after an epoch
    return Dataset(
        name="imagenet",
        pool=pool.streamed(),
        test=test.streamed(),
        num_val=len(pool) // 10,
        num_classes=len(pool.classes),
        mean=MEAN,
        deviation=DEVIATION,
        accuracy_floor=0.05,
    )
