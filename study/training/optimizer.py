"""The optimiser of a replicate: torch's own SGD or AdamW, and which parameters it lets decay.

Source: https://arxiv.org/abs/1711.05101
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from study.config import TrialConfig


def _light(kind: type[torch.optim.Optimizer]) -> Any:
    """torch's optimiser without its decorators for compiled code; not for use inside a compiled graph.

    They import the compiler wherever an optimiser is made, which costs each worker a second. What is compiled here
    (``study.training.lane``) is a network and its loss, never an optimiser.
    """
    decorated = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in decorated}
    return type(f"Light{kind.__name__}", (kind,), plain | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


LightSGD = _light(torch.optim.SGD)
LightAdamW = _light(torch.optim.AdamW)


def make_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.Optimizer:
    """The optimiser of ``config`` for all parameters of ``model``. What does not decay is the second of its groups."""
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if config.decayed == "weights":
        split: dict[bool, list[Tensor]] = {True: [], False: []}
        for parameter in model.parameters():
            split[parameter.dim() > 1].append(parameter)
        groups = [{"params": split[True]}, {"params": split[False], "weight_decay": 0.0}]
    given: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        made: torch.optim.Optimizer = LightAdamW(groups, betas=(config.momentum, config.beta2), **given)
    else:
        made = LightSGD(groups, momentum=config.momentum, nesterov=config.optimizer == "nesterov", **given)
    return made
