"""The other side of ``trials_per_hour``: what the tutorials show, for the same networks, budgets and logging.

    python -m benchmarks.tutorial FOLDER digits 48

https://docs.ray.io/en/latest/tune/examples/tune-pytorch-cifar.html (a function trainable with a DataLoader and a checkpoint an
epoch: ``benchmarks.trainable``), https://docs.ray.io/en/latest/tune/examples/optuna_example.html (OptunaSearch) and
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

from benchmarks.scales import SCALES, load_plugins
from benchmarks.trainable import epochs, parts_of


def train(config: dict[str, Any], data: Any) -> None:
    """A trial."""
    torch.set_num_threads(1)
    load_plugins(config["scale"])
    device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
    for metrics, state in epochs(config, data, device):
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / "checkpoint.pt")
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
    data, moments, num_classes = parts_of(scale["fixed"]["dataset"])
    space = {
        "lr": tune.loguniform(0.03, 1.0),
        "weight_decay": tune.loguniform(1e-5, 1e-2),
        "merge": tune.choice(scale["merge"]),
        "depth": tune.choice(scale["depth"]),
        "seed": tune.randint(0, 2**31),
        "fixed": scale["fixed"],
        "scale": given.scale,
        "moments": moments,
        "num_classes": num_classes,
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
