"""The other side of ``trials_per_hour``: what the tutorials show, for the same networks, budgets and logging.

    python -m benchmarks.tutorial FOLDER digits 48

https://docs.ray.io/en/latest/tune/examples/tune-pytorch-cifar.html (a function trainable with a DataLoader and a checkpoint an
epoch), https://docs.ray.io/en/latest/tune/examples/optuna_example.html (OptunaSearch) and
https://docs.ray.io/en/latest/tune/examples/tune-mlflow.html (MLflowLoggerCallback). Written with care: one thread and one
core a trial, data put into the object store once, SQLite made before it starts, no loader processes for what fits in memory
and is not augmented. What is, torchvision augments, an image at a time in two loader processes, as the first of these shows.
"""

import argparse
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import mlflow
import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.scales import SCALES, load_plugins
from study.config import TrialConfig
from study.data import load_dataset, split
from study.models import build_network


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


def train(config: dict[str, Any], data: Any) -> None:
    """A trial."""
    torch.set_num_threads(1)
    load_plugins(config["scale"])
    device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
    fixed = config["fixed"]
    torch.manual_seed(config["seed"])
    parts: dict[str, Dataset[Any]] = {name: TensorDataset(*tensors) for name, tensors in data.items()}
    augmented = "augment" in fixed
    loader = DataLoader(
        Augmented(*data["train"]) if augmented else parts["train"],
        batch_size=fixed["batch_size"],
        shuffle=True,
        num_workers=2 if augmented else 0,
        persistent_workers=augmented,
        pin_memory=device == "cuda",
    )
    val, test = (DataLoader(parts[name], batch_size=512) for name in ("val", "test"))
    settings = {name: fixed[name] for name in ("network", "width", "epochs", "batch_size")}
    built = TrialConfig(
        dataset=fixed["dataset"], merge=config["merge"], depth=config["depth"], seed=0, split_seed=0, **settings
    )
    mean, deviation = config["moments"]
    model = build_network(built, num_classes=10, mean=mean, deviation=deviation).to(device)
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
        with tempfile.TemporaryDirectory() as folder:
            torch.save((model.state_dict(), optimizer.state_dict()), Path(folder) / "checkpoint.pt")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    """Run so many trials, then leave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("scale", choices=sorted(SCALES))
    parser.add_argument("num_trials", type=int)
    given = parser.parse_args()
    scale, folder = SCALES[given.scale], given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("tutorial", artifact_location=str(folder / "artifacts"))
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    load_plugins(given.scale)
    dataset = load_dataset(scale["fixed"]["dataset"])
    parts = split(dataset, 0)
    data = {name: (getattr(parts, name).pixels(), getattr(parts, name).labels) for name in ("train", "val", "test")}
    space = {
        "lr": tune.loguniform(0.03, 1.0),
        "weight_decay": tune.loguniform(1e-5, 1e-2),
        "merge": tune.choice(scale["merge"]),
        "depth": tune.choice(scale["depth"]),
        "seed": tune.randint(0, 2**31),
        "fixed": scale["fixed"],
        "scale": given.scale,
        "moments": (dataset.mean, dataset.deviation),
    }
    resources = {"cpu": 1, "gpu": scale.get("gpus", 0)}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, data=data), resources),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val_loss", mode="min", search_alg=OptunaSearch(seed=0), num_samples=given.num_trials
        ),
        run_config=tune.RunConfig(
            name="tutorial",
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=uri, experiment_name="tutorial")],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    found = tuner.fit()
    if found.errors or len(found) != given.num_trials:
        raise SystemExit(f"{len(found.errors)} of {len(found)} trials failed")
    ray.shutdown()


if __name__ == "__main__":
    main()
