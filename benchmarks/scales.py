"""The scales at which whole studies are timed: that of the preset ``digits``, longer trainings, and one for a GPU."""

import importlib
from typing import Any

SCALES: dict[str, dict[str, Any]] = {
    # as in search_spaces/digits.yaml: 8 epochs, width 8, batch 128
    "digits": {
        "merge": ["add", "mul", "sig_bn"],
        "depth": [8, 14],
        "fixed": {"dataset": "digits", "network": "cifar_resnet", "width": 8, "epochs": 8, "batch_size": 128},
        "blocks": 4,
        "trials": 4,
    },
    "longer": {
        "merge": ["add", "mul", "sig_bn"],
        "depth": [8],
        "fixed": {"dataset": "digits", "network": "cifar_resnet", "width": 16, "epochs": 12, "batch_size": 64},
        "blocks": 4,
        "trials": 4,
    },
    # a group of eight takes a minute and more
    "minute": {
        "merge": ["add", "mul"],
        "depth": [8],
        "fixed": {"dataset": "digits", "network": "cifar_resnet", "width": 8, "epochs": 96, "batch_size": 128},
        "blocks": 8,
        "trials": 1,
    },
    # ResNet-20 on images of CIFAR-10's number and shape; by both sides four trials share a GPU
    "cifar": {
        "merge": ["add", "mul", "sig_bn"],
        "depth": [20],
        "fixed": {
            "dataset": "made_up_cifar", "network": "cifar_resnet", "width": 16, "epochs": 5, "batch_size": 128,
            "augment": "pad_crop_flip",
        },
        "blocks": 16,
        "trials": 1,
        "plugins": ["benchmarks.made_up"],
        "gpus": 0.25,
        "group": 16,
    },
}  # fmt: skip


def load_plugins(scale: str) -> None:
    """Import what ``scale`` names beside what comes with the project."""
    for module in SCALES[scale].get("plugins", ()):
        importlib.import_module(module)


def specification(scale: str, *, blocks: int, trials: int, resources: dict[str, Any]) -> dict[str, Any]:
    """Parts of a study at ``scale``: ``trials`` searches and one confirmed training a cell and block, nothing measured.

    ``resources``: how they train.
    """
    chosen = SCALES[scale]
    levels = {"merge": chosen["merge"], "attention": ["none"], "attention_form": ["none"], "depth": chosen["depth"]}
    placed = {"cpus": 1, "gpus": chosen.get("gpus", 0), "group": chosen.get("group", 8), "threads": 1}
    return {
        "seed": 1,
        "factors": levels,
        "fixed": chosen["fixed"],
        "nuisance": {
            "lr": {"low": 0.03, "high": 1.0, "log": True, "default": 0.2},
            "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True, "default": 5e-4},
        },
        "blocks": blocks,
        "budget": {"search_trials": trials, "startup_trials": min(2, trials)},
        "resources": {**placed, **resources},
        "contrasts": [{"arm": {"merge": "mul"}, "reference": {"merge": "add"}}],
        "plugins": chosen.get("plugins", []),
    }


def num_trainings(scale: str, *, blocks: int, trials: int) -> int:
    """Of a study with that specification."""
    return len(SCALES[scale]["merge"]) * len(SCALES[scale]["depth"]) * blocks * (trials + 1)
