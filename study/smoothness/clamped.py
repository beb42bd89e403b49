"""https://arxiv.org/abs/2106.15067: a network whose attention gates stand still at their mean, and units taken out of it.

With gates free, a unit taken out before the gate or behind it gives one number, so a gate and what it weighs cannot be told
apart. Here every gate is clamped to its mean over the images, and then a unit of the map that a layer's attention sees is
replaced, by zero or by its mean. A unit is a channel; where a gate has one value a position (a spatial gate, non-local
attention, for which it is the attention received) a unit is a position.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from study.smoothness.context import MeasureContext


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One attention layer on N images: its module, and float64 values (N, U) of gate and activation by unit.

    ``mean_gate`` (1, ...) is what its gate is clamped to, ``mean_map`` (1, C, H, W) what a mean ablation puts in.
    """

    name: str
    module: nn.Module
    by_channel: bool
    gate: Tensor
    activation: Tensor
    mean_gate: Tensor
    mean_map: Tensor

    @property
    def num_units(self) -> int:
        """U."""
        return self.gate.shape[1]


def gated_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules of ``model`` that apply attention: those with a part called ``gate``, by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(getattr(module, "gate", None), nn.Module)
    }


@torch.no_grad()
def read_layers(context: MeasureContext, x: Tensor) -> list[Layer]:
    """What every gate of the network says on images ``x``, free. Layers whose gate is never asked are left out."""
    modules = gated_modules(context.model)
    gates: dict[str, list[Tensor]] = {name: [] for name in modules}
    maps: dict[str, list[Tensor]] = {name: [] for name in modules}
    with contextlib.ExitStack() as stack:
        for name, module in modules.items():
            stack.enter_context(_hooked(_gate(module).register_forward_hook(_keep_output(gates[name]))))
            stack.enter_context(_hooked(module.register_forward_pre_hook(_keep_input(maps[name]))))
        context.logits(x)
    found = []
    for name, module in modules.items():
        if gates[name]:
            found.append(_layer(name, module, torch.cat(gates[name]), torch.cat(maps[name])))
    return found


@contextlib.contextmanager
def clamped(layers: list[Layer]) -> Iterator[None]:
    """Every gate at its mean for the while."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_hooked(_gate(layer.module).register_forward_hook(_clamp(layer.mean_gate))))
        yield


@torch.no_grad()
def ablation(context: MeasureContext, layer: Layer, x: Tensor, y: Tensor, baseline: Tensor, *, mean: bool) -> Tensor:
    """How much the loss of each image grows when a unit of ``layer`` is zero, or at its mean: (N, U), nats.

    ``baseline`` (N,) are the losses with the unit left. Call it with gates ``clamped``. ``chunk`` pairs of an image and a
    unit go through the network at a time.
    """
    num_images, num_units = len(x), layer.num_units
    losses = torch.empty(num_images * num_units, dtype=torch.float64, device=x.device)
    for index in torch.split(torch.arange(num_images * num_units, device=x.device), context.chunk):
        image, unit = index // num_units, index % num_units
        with _hooked(layer.module.register_forward_pre_hook(_without(layer, unit, mean=mean))):
            logits = context.checked(context.model(x[image]))
        losses[index] = functional.cross_entropy(logits.double(), y[image], reduction="none")
    return losses.view(num_images, num_units) - baseline[:, None]


def taylor(context: MeasureContext, layers: list[Layer], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Losses (N,), and by layer the squared first-order loss of zeroing each unit, (sum of gradient * activation)^2 (N, U).

    https://arxiv.org/abs/1906.10771 (Molchanov et al. 2019). One backward pass serves all layers and images.
    """
    losses, found = [], [[] for _ in layers]  # type: ignore[var-annotated]
    for part, labels in zip(torch.split(x, context.chunk), torch.split(y, context.chunk), strict=True):
        maps: list[list[Tensor]] = [[] for _ in layers]
        with torch.enable_grad(), contextlib.ExitStack() as stack:
            for layer, kept in zip(layers, maps, strict=True):
                stack.enter_context(_hooked(layer.module.register_forward_pre_hook(_watch(kept))))
            logits = context.checked(context.model(part))
            loss = functional.cross_entropy(logits.double(), labels, reduction="none")
            gradients = torch.autograd.grad(loss.sum(), [kept[0] for kept in maps])
        losses.append(loss.detach())
        for layer, kept, gradient, into in zip(layers, maps, gradients, found, strict=True):
            into.append(_by_unit((gradient * kept[0]).detach().double(), layer.by_channel, sum_up=True) ** 2)
    return torch.cat(losses), [torch.cat(parts) for parts in found]


def _layer(name: str, module: nn.Module, gate: Tensor, seen: Tensor) -> Layer:
    pairwise = gate.dim() == 3
    by_channel = not pairwise and gate.shape[1] > 1
    values = gate.mean(1) if pairwise else _by_unit(gate, by_channel)
    return Layer(
        name=name,
        module=module,
        by_channel=by_channel,
        gate=values.double(),
        activation=_by_unit(seen.abs().double(), by_channel),
        mean_gate=gate.mean(0, keepdim=True),
        mean_map=seen.mean(0, keepdim=True),
    )


def _by_unit(maps: Tensor, by_channel: bool, *, sum_up: bool = False) -> Tensor:
    """(N, C, H, W) to (N, C), or to (N, H * W): mean, or sum, over the rest."""
    flat = maps.flatten(2)
    dimension = 2 if by_channel else 1
    return flat.sum(dimension) if sum_up else flat.mean(dimension)


def _gate(module: nn.Module) -> nn.Module:
    gate = module.gate
    assert isinstance(gate, nn.Module)
    return gate


@contextlib.contextmanager
def _hooked(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _keep_output(into: list[Tensor]) -> Callable[..., None]:
    return lambda module, given, output: into.append(output)


def _keep_input(into: list[Tensor]) -> Callable[..., None]:
    return lambda module, given: into.append(given[0])


def _clamp(mean_gate: Tensor) -> Callable[..., Tensor]:
    return lambda module, given, output: mean_gate.expand_as(output)


def _watch(into: list[Tensor]) -> Callable[..., Any]:
    def hook(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        # the first layer's input may need no gradient of its own
        seen = given[0] if given[0].requires_grad else given[0].detach().requires_grad_()
        into.append(seen)
        return (seen,)

    return hook


def _without(layer: Layer, unit: Tensor, *, mean: bool) -> Callable[..., tuple[Tensor]]:
    def hook(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        seen = given[0]
        chosen = functional.one_hot(unit, layer.num_units).to(seen.dtype)
        shape = (len(unit), -1, 1, 1) if layer.by_channel else (len(unit), 1, *seen.shape[2:])
        taken = chosen.view(shape)
        return (seen * (1 - taken) + (taken * layer.mean_map if mean else 0.0),)

    return hook
