"""A training as the tutorials write it, an epoch at a time: a ``DataLoader``, SGD, a cosine schedule, a validation an epoch.

``benchmarks.tutorial`` runs it as a trainable of Ray Tune, ``benchmarks.gpu_session`` in a plain loop; without Ray, Optuna and
MLflow. No loader processes for what fits in memory and is not augmented. What is, torchvision augments, an image at a time, in
loader processes.

Source: https://docs.ray.io/en/latest/tune/examples/tune-pytorch-cifar.html
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from study.config import TrialConfig
from study.data import load_dataset, split
from study.models import build_network

Parts = Mapping[str, tuple[Tensor, Tensor]]
# Of a network that a trial builds, what a scale fixes.
_OF_NETWORK = ("network", "width", "epochs", "batch_size")


class Augmented(Dataset[Any]):
    """Images and labels, each image padded, cropped and maybe mirrored when it is asked for."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        # here, for a trial that augments nothing need not import it
        from torchvision.transforms import v2

        self._pixels, self._labels = pixels, labels
        self._transform = v2.Compose([v2.RandomCrop(pixels.shape[-1], padding=4), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._transform(self._pixels[index]), self._labels[index]


def parts_of(dataset: str) -> tuple[dict[str, tuple[Tensor, Tensor]], tuple[Any, Any], int]:
    """Pixels and labels of a dataset's ``train``, ``val`` and ``test``, its moments, and how many classes it has."""
    known = load_dataset(dataset)
    parts = split(known, 0)
    data = {name: (getattr(parts, name).pixels(), getattr(parts, name).labels) for name in ("train", "val", "test")}
    return data, (known.mean, known.deviation), known.num_classes


def accuracy_and_loss(model: nn.Module, loader: DataLoader[Any], device: str) -> tuple[float, float]:
    """Of one split, in eval mode."""
    model.eval()
    right, loss, num = 0, 0.0, 0
    with torch.no_grad():
        for pixels, labels in loader:
            pixels, labels = pixels.to(device), labels.to(device)
            logits = model(pixels)
            right += int((logits.argmax(1) == labels).sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            num += len(labels)
    return right / num, loss / num


def epochs(
    config: Mapping[str, Any], data: Parts, device: str, *, loaders: int = 2
) -> Iterator[tuple[dict[str, float], tuple[dict[str, Any], dict[str, Any]]]]:
    """Each epoch's metrics, and the state of network and optimiser to keep; of ``loaders`` processes if images are augmented.

    ``config``: ``fixed`` (settings of the scale), ``merge``, ``depth``, ``seed``, ``lr``, ``weight_decay``, ``moments`` of
    the pixels, and ``num_classes`` (10).
    """
    fixed = config["fixed"]
    torch.manual_seed(config["seed"])
    parts: dict[str, Dataset[Any]] = {name: TensorDataset(*tensors) for name, tensors in data.items()}
    augmented = "augment" in fixed
    loader = DataLoader(
        Augmented(*data["train"]) if augmented else parts["train"],
        batch_size=fixed["batch_size"],
        shuffle=True,
        num_workers=loaders if augmented else 0,
        persistent_workers=augmented,
        pin_memory=device == "cuda",
    )
    val, test = (DataLoader(parts[name], batch_size=512) for name in ("val", "test"))
    built = TrialConfig(
        dataset=fixed["dataset"], merge=config["merge"], depth=config["depth"], seed=0, split_seed=0,
        **{name: fixed[name] for name in _OF_NETWORK},
    )  # fmt: skip
    mean, deviation = config["moments"]
    num_classes = config.get("num_classes", 10)
    model = build_network(built, num_classes=num_classes, mean=mean, deviation=deviation).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9, weight_decay=config["weight_decay"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, fixed["epochs"])
    for epoch in range(fixed["epochs"]):
        model.train()
        total, num = 0.0, 0
        for pixels, labels in loader:
            pixels, labels = pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(pixels), labels)
            loss.backward()
            optimizer.step()
            total, num = total + loss.item() * len(labels), num + len(labels)
        schedule.step()
        val_accuracy, val_loss = accuracy_and_loss(model, val, device)
        metrics = {"train_loss": total / num, "val_accuracy": val_accuracy, "val_loss": val_loss}
        if epoch + 1 == fixed["epochs"]:
            metrics["test_accuracy"], metrics["test_loss"] = accuracy_and_loss(model, test, device)
        yield metrics, (model.state_dict(), optimizer.state_dict())
