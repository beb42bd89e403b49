"""What is known of a dataset without its images: enough to plan a study before anything is downloaded."""

from dataclasses import dataclass

from study.data.dataset import load_dataset
from study.registry import DATASETS


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Numbers of images by role, of classes, and the shape (C, H, W) that networks see."""

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_val: int
    num_test: int


def dataset_facts(name: str) -> Facts:
    """From the registration (``image_shape, num_classes, num_pool, num_test``), or else from the loaded images.

    A tenth of the pool is for validation, as ``whole`` has it. Raises ``UserError`` for an unknown dataset, and for an
    absent one whose registration tells too little (a folder of one's own).
    """
    traits = DATASETS[name].traits
    if "num_pool" in traits:
        num_val = traits["num_pool"] // 10
        return Facts(
            image_shape=traits["image_shape"],
            num_classes=traits["num_classes"],
            num_train=traits["num_pool"] - num_val,
            num_val=num_val,
            num_test=traits["num_test"],
        )
    dataset = load_dataset(name)
    return Facts(
        image_shape=dataset.image_shape,
        num_classes=dataset.num_classes,
        num_train=len(dataset.pool) - dataset.num_val,
        num_val=dataset.num_val,
        num_test=len(dataset.test),
    )
