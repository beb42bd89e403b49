"""From a replicate's settings to a network with seeded initial weights, equal wherever two networks share a name.

Each parameter draws from a generator of its own, seeded by hash(seed, parameter name). So two cells that differ in a merge
operator start from equal convolutions, and adding a parameter shifts no other parameter's draw.

Source: https://arxiv.org/abs/1502.01852
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from study.config import TrialConfig, is_own
from study.errors import UserError
from study.models.blocks import BlockParts
from study.models.norms import replace_norms, set_norms
from study.models.own import build_own
from study.registry import NETWORKS
from study.seeding import derive_seed

# as torchvision has them
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
# settings that only networks with a trait of that name have a place for
_PLACES = ("dropout", "activation")


def build_network(
    config: TrialConfig,
    *,
    num_classes: int,
    mean: Sequence[float],
    deviation: Sequence[float],
    image_shape: tuple[int, int, int] | None = None,
    weights: bool = True,
) -> nn.Module:
    """Return the network of ``config``, its weights drawn from ``config.seed`` (unless ``weights`` are not wanted).

    ``image_shape`` (C, H, W) is for a network of one's own that asks for it. Raises ``UserError`` for bad levels, for
    keywords that do not fit a network of one's own, and for dropout or a norm in a network that has no place for it.
    """
    entry = NETWORKS[config.network]
    if config.input_moments == "imagenet":
        if len(mean) != len(IMAGENET_MEAN):
            raise UserError(f"setting 'input_moments' = 'imagenet' with images of {len(mean)} channels: it is for 3")
        mean, deviation = IMAGENET_MEAN, IMAGENET_DEVIATION
    if is_own(config.network):
        own = build_own(
            entry,
            config,
            num_classes=num_classes,
            image_shape=image_shape,
            mean=mean,
            deviation=deviation,
            weights=weights,
        )
        set_norms(own, momentum=config.norm_momentum, parts=config.norm_parts)
        if weights:
            start_parts(own, config.seed)
        return own
    for name in _PLACES:
        if getattr(config, name) != getattr(TrialConfig, name) and not entry.traits.get(name):
            places = [entry.name for entry in NETWORKS if entry.traits.get(name)]
            raise UserError(
                f"setting {name!r} = {getattr(config, name)!r}: network {config.network!r} has no place for it"
                f" (networks that have: {', '.join(places)})"
            )
    parts = BlockParts(
        merge=config.merge,
        merge_site=config.merge_site,
        merge_where=config.merge_where,
        attention_where=config.attention_where,
        attention=config.attention,
        attention_form=config.attention_form,
        dropout=config.dropout,
        activation=config.activation,
    )
    network: nn.Module = entry.build(
        depth=config.depth, width=config.width, num_classes=num_classes, mean=mean, deviation=deviation, parts=parts
    )
    if config.norm != "batch":
        replace_norms(network, config.norm)
    set_norms(network, momentum=config.norm_momentum, parts=config.norm_parts)
    if weights:
        initialise(network, config.seed)
    return network


@runtime_checkable
class StartsElsewhere(Protocol):
    """A module with initial values of its own, set after the seeded draw."""

    def start(self) -> None:
        """Set them."""


@runtime_checkable
class StartsFromSeed(Protocol):
    """A module with constants of its own that are drawn (the signs of a noise placebo), not parameters."""

    def start_from(self, seed: int) -> None:
        """Set them from ``seed``, which depends on the replicate's seed and the module's name."""


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Set every parameter of ``model`` in place, on the CPU's generator so that devices agree.

    Convolutions: normal with variance 2 / fan_out. Linear layers: uniform within 1 / sqrt(fan_in). Biases of both: uniform
    within 1 / sqrt(fan_in). A network with ``xavier`` has convolutions uniform with variance 4 / (fan_in + fan_out), their
    biases 0. Norms: scale 1, shift 0. A module that ``StartsElsewhere`` has the last word; other parameters keep what their
    module set.
    """

    def generator(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(seed, "init", name))

    xavier = getattr(model, "xavier", False)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight, drawn = module.weight, torch.empty(module.weight.shape)
            bound = 1 / math.sqrt(weight[0].numel())
            plain = isinstance(module, nn.Linear) or not xavier
            if not plain:
                nn.init.xavier_uniform_(drawn, gain=math.sqrt(2), generator=generator(f"{name}.weight"))
            elif isinstance(module, nn.Conv2d):
                fan_out = weight.shape[0] * weight[0, 0].numel()
                drawn.normal_(0, math.sqrt(2 / fan_out), generator=generator(f"{name}.weight"))
            else:
                drawn.uniform_(-bound, bound, generator=generator(f"{name}.weight"))
            weight.copy_(drawn)
            if module.bias is not None:
                drawn = torch.zeros(module.bias.shape)
                if plain:
                    drawn.uniform_(-bound, bound, generator=generator(f"{name}.bias"))
                module.bias.copy_(drawn)
    start_parts(model, seed)


def start_parts(model: nn.Module, seed: int) -> None:
    """Let the modules that draw constants of their own draw them, and those that start elsewhere set their values."""
    for name, module in model.named_modules():
        if isinstance(module, StartsFromSeed):
            module.start_from(derive_seed(seed, "init", name))
    for module in model.modules():
        if isinstance(module, StartsElsewhere):
            module.start()
