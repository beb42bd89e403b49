"""The exponential moving average of a network's weights, taken after each step.

After the first step it is the weights; then average = decay average + (1 - decay) weights, torch's
``get_ema_multi_avg_fn``. Running statistics of batch norms are averaged as weights are; counters are the network's own. For
what is measured after training they are estimated anew on the averaged weights (``study.smoothness.batchnorm``).

Source: https://arxiv.org/abs/1803.05407
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from study.config import TrialConfig

# Floating-point entries of a state dict by name.
Average = dict[str, Tensor]


def averaged_state(model: nn.Module) -> Average:
    """What is averaged: a network's own tensors, parameters and running statistics."""
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}


@torch.no_grad()
def follow(average: Average, model: nn.Module, decay: float) -> Average:
    """The average after one more step; ``average`` is changed in place, and empty before the first."""
    state = averaged_state(model)
    if not average:
        return {name: value.clone() for name, value in state.items()}
    move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    move([average[name] for name in state], list(state.values()), None)
    return average


@torch.no_grad()
def exchange(average: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> None:
    """Swap the values of two sets of tensors."""
    for name, value in average.items():
        kept = held[name].clone()
        held[name].copy_(value)
        value.copy_(kept)


def follow_weights(config: TrialConfig, first: int, num_steps: int) -> list[float]:
    """What part of the average each step's weights take, for steps from number ``first`` on."""
    return [1 - config.ema_decay if step else 1.0 for step in range(first, first + num_steps)]
