"""The two scales at which whole studies are timed: that of the preset ``digits``, and one of longer trainings."""

from typing import Any

SCALES: dict[str, dict[str, Any]] = {
    # as in search_spaces/digits.yaml: 8 epochs, width 8, batch 128
    "digits": {
        "merge": ["add", "mul", "sig_bn"],
        "depth": [8, 14],
        "fixed": {"network": "cifar_resnet", "width": 8, "epochs": 8, "batch_size": 128},
    },
    "longer": {
        "merge": ["add", "mul", "sig_bn"],
        "depth": [8],
        "fixed": {"network": "cifar_resnet", "width": 16, "epochs": 12, "batch_size": 64},
    },
}


def specification(scale: str, *, blocks: int, trials: int, fuse: str, group: int = 8) -> dict[str, Any]:
    """Parts of a study at ``scale``: ``trials`` searches and one confirmed training a cell and block, nothing measured."""
    chosen = SCALES[scale]
    levels = {"merge": chosen["merge"], "attention": ["none"], "attention_form": ["none"], "depth": chosen["depth"]}
    return {
        "seed": 1,
        "factors": levels,
        "fixed": {"dataset": "digits", **chosen["fixed"]},
        "nuisance": {
            "lr": {"low": 0.03, "high": 1.0, "log": True, "default": 0.2},
            "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True, "default": 5e-4},
        },
        "blocks": blocks,
        "budget": {"search_trials": trials, "startup_trials": min(2, trials)},
        "resources": {"cpus": 1, "group": group, "threads": 1, "fuse": fuse},
        "contrasts": [{"arm": {"merge": "mul"}, "reference": {"merge": "add"}}],
    }


def num_trainings(scale: str, *, blocks: int, trials: int) -> int:
    """Of a study with that specification."""
    return len(SCALES[scale]["merge"]) * len(SCALES[scale]["depth"]) * blocks * (trials + 1)
