"""The networks of a study before any is trained: built without data, counted, and refused where no machine can hold them."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from study.config import TrialConfig, is_own
from study.data.dataset import Facts
from study.errors import UserError, reason
from study.models import build_network, num_flops, num_params
from study.models.cost import layer_costs
from study.plugins import file_of
from study.registry import NETWORKS

T = TypeVar("T")
# The largest network of a study: that of ResNet-50 on ImageNet has 26 million parameters and takes 8 billion FLOPs.
_MOST = {"parameters": 500_000_000, "FLOPs an image": 100_000_000_000}
# Images by which a network of one's own is tried: with one, batch norm over a map of one place has no variance.
_FEW = 2


def check_network(config: TrialConfig, known: Facts) -> None:
    """Build the network. Raises ``UserError`` for one that no machine is to hold, found before it takes memory."""
    network = shapes(config, known)
    if file_of(NETWORKS[config.network]) or is_own(config.network):
        _check_own(config, known, network)
    size = {"parameters": num_params(network)}
    # a weight serves once at each place of the image at most
    if 2 * size["parameters"] * math.prod(known.image_shape[1:]) > _MOST["FLOPs an image"]:
        size["FLOPs an image"] = counted_flops(config, known)
    large = f"setting 'width' = {config.width} with depth = {config.depth}"
    if is_own(config.network):
        large = f"network = {config.structure!r}"
    for what, num in size.items():
        if num > _MOST[what]:
            raise UserError(f"{large}: a network of {num:,} {what}, at most {_MOST[what]:,}")


def _check_own(config: TrialConfig, known: Facts, network: nn.Module) -> None:
    """Raise ``UserError`` unless a network of one's own takes the data's images, and equal seeds give equal weights."""
    where, shape = f"network {config.structure!r}", (_FEW, *known.image_shape)
    for training in (True, False):
        logits = _logits(config, known, network.train(training), where)
        if not isinstance(logits, Tensor):
            raise UserError(f"{where} gives a {type(logits).__name__}, not a tensor of logits")
        if tuple(logits.shape) != (_FEW, known.num_classes):
            raise UserError(
                f"{where} gives outputs of shape {tuple(logits.shape)} for images of shape {shape}; {config.dataset} has "
                f"{known.num_classes} classes, so {(_FEW, known.num_classes)} was expected"
            )
    first, second = (untrained(config, known).state_dict() for _ in range(2))
    for name, value in first.items():
        if not torch.equal(value, second[name]):
            raise UserError(
                f"{where}: equal seeds give other values of {name.removeprefix('network.')!r}; draw from torch's generator, "
                "which is seeded before the network is made"
            )


def _logits(config: TrialConfig, known: Facts, network: nn.Module, where: str) -> Any:
    """What ``network`` gives for a few images; without arithmetic where it allows that."""
    with torch.random.fork_rng(devices=[]):
        try:
            return _passed(network, torch.zeros(_FEW, *known.image_shape, device="meta"))
        except Exception:  # noqa: BLE001  whatever a module raises that looks at its numbers
            real = untrained(config, known).train(network.training)
        try:
            return _passed(real, torch.rand(_FEW, *known.image_shape))
        except UserError:
            raise
        except Exception as error:
            shape = ", ".join(map(str, known.image_shape))
            raise UserError(
                f"{where} does not take the images of {config.dataset}, (N, {shape}): {reason(error)}"
            ) from error


def _passed(network: nn.Module, images: Tensor) -> Any:
    """What ``network`` gives for ``images``; in training its gradient is taken too.

    Torch itself refuses an operation in place on images that are a leaf, and on what a gradient needs.
    """
    logits = network(images.requires_grad_())
    if network.training and isinstance(logits, Tensor):
        wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
        torch.autograd.grad(logits.sum(), wanted, allow_unused=True)
    return logits.detach() if isinstance(logits, Tensor) else logits


def shapes(config: TrialConfig, known: Facts) -> nn.Module:
    """The network without numbers, which takes no memory; one that needs real numbers to be built, with them."""
    try:
        with torch.device("meta"):
            return untrained(config, known, weights=False)
    except UserError:
        raise
    except Exception:  # noqa: BLE001  whatever a plug-in's module raises that looks at its numbers
        return untrained(config, known)


def counted_flops(config: TrialConfig, known: Facts) -> int:
    """FLOPs of a forward pass of one image."""
    return _counted(num_flops, config, known)


def num_activations(config: TrialConfig, known: Facts) -> int:
    """Numbers that the layers give for one image."""
    return sum(row.activations for row in _counted(layer_costs, config, known))


def _counted(count: Callable[[nn.Module, tuple[int, int, int]], T], config: TrialConfig, known: Facts) -> T:
    """``count`` of the network and an image's shape, without doing the arithmetic where the network allows it."""
    try:
        return count(shapes(config, known), known.image_shape)
    except Exception:  # noqa: BLE001  a gate that draws or looks at its input
        return count(untrained(config, known), known.image_shape)


def untrained(config: TrialConfig, known: Facts, *, weights: bool = True) -> nn.Module:
    """The network of ``config`` for data of which only facts are known: pixels are taken to have mean .5, deviation .25.

    Without ``weights`` they are not drawn.
    """
    channels = known.image_shape[0]
    return build_network(
        config,
        num_classes=known.num_classes,
        image_shape=known.image_shape,
        mean=(0.5,) * channels,
        deviation=(0.25,) * channels,
        weights=weights,
    )
