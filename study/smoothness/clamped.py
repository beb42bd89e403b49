"""A network whose attention gates are clamped to their mean, and units taken out of it.

With free gates, taking a unit out before the gate or after it gives the same number, so a gate and what it weighs cannot be
separated. Here each gate is clamped to its mean over the images, and then a unit of the map that a layer's attention sees is
replaced by zero or by its mean. A unit is a channel; if a gate has one value per position (spatial gates, non-local attention:
the attention received) it is a position; of a selective kernel it is a channel of its convolutions' input.

Source: https://arxiv.org/abs/2106.15067
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.errors import UserError, nearest, out_of_memory
from study.smoothness.context import MeasureContext

GATES = ("gate",)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One attention layer on N images: its module and gate, and float64 values (N, U) of gate and activation by unit.

    ``mean_gate`` (1, ...) is the value its gate is clamped to, ``mean_map`` (1, C, H, W) that of a mean ablation.
    """

    name: str
    module: nn.Module
    gate_module: nn.Module
    by_channel: bool
    gate: Tensor
    activation: Tensor
    mean_gate: Tensor
    mean_map: Tensor

    @property
    def num_units(self) -> int:
        """U."""
        return self.gate.shape[1]

    @property
    def varied(self) -> bool:
        """Whether mean gates differ by more than rounding."""
        mean = self.gate.mean(0)
        return bool(mean.amax() - mean.amin() > 1e-6 * mean.abs().amax())


def gated_modules(model: nn.Module, gates: Sequence[str] = GATES) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Modules of ``model`` that apply attention, by name, each with its gate.

    ``gates`` are names of attributes that hold a gate (``scale_activation``) or full names of gates
    (``layer1.0.se.scale_activation``); a gate weighs the input of the module that holds it. Raises ``UserError`` for a name,
    other than the default, that no module has.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    found, matched, seen = {}, set(GATES), set()
    for name, module in modules.items():
        holder, _, attribute = name.rpartition(".")
        if name and (named := {name, attribute}.intersection(gates)):
            matched |= named
            if (pair := (modules[holder], module)) not in seen:  # a layer of several names is one
                seen.add(pair)
                found[holder] = pair
    for name in gates:
        if name not in matched:
            raise UserError(f"gates: the network has no module {name!r}{nearest(name, modules)}")
    return found


@torch.no_grad()
def read_layers(context: MeasureContext, x: Tensor, gates: Sequence[str] = GATES) -> list[Layer]:
    """The attention layers of the network, with their free gates' values on images ``x``.

    Left out are layers whose gate is never called, and modules of several inputs, such as a merge operator with a gate of its
    own. Raises ``UserError`` for a gate called twice per forward pass, or whose values are not one per channel or position.
    """
    modules = gated_modules(context.model, gates)
    said: dict[str, list[Tensor]] = {name: [] for name in modules}
    maps: dict[str, list[Tensor]] = {name: [] for name in modules}
    with contextlib.ExitStack() as stack:
        for name, (module, gate) in modules.items():
            stack.enter_context(gate.register_forward_hook(_keep_output(said[name])))
            stack.enter_context(module.register_forward_pre_hook(_keep_input(maps[name])))
        context.logits(x)
    return [
        _layer(name, module, gate, torch.cat(said[name]), torch.cat(maps[name]), len(x))
        for name, (module, gate) in modules.items()
        if said[name] and maps[name]
    ]


@contextlib.contextmanager
def clamped(layers: list[Layer]) -> Iterator[None]:
    """Meanwhile each gate is at its mean."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.gate_module.register_forward_hook(_clamp(layer.mean_gate)))
        yield


@contextlib.contextmanager
def only_units(layer: Layer, present: Tensor) -> Iterator[None]:
    """Meanwhile units of ``layer`` are multiplied by ``present`` (B, U), one row per image of the batch."""
    with layer.module.register_forward_pre_hook(lambda _, given: (given[0] * _placed(layer, present, given[0]),)):
        yield


@torch.no_grad()
def ablation(context: MeasureContext, layer: Layer, x: Tensor, y: Tensor, baseline: Tensor, *, mean: bool) -> Tensor:
    """Growth of each image's loss when a unit of ``layer`` is zero, or at its mean: (N, U), nats.

    ``baseline`` (N,) are the losses with all units. Call it with gates ``clamped``. Per pass, ``chunk`` pairs of an image and
    a unit go through the network from the layer on; what comes before it is computed once per image.
    """
    size = min(layer.num_units, context.chunk)
    units = torch.split(torch.arange(layer.num_units, device=x.device), size)
    losses = []
    for images, labels in zip(*(torch.split(rows, max(1, context.chunk // size)) for rows in (x, y)), strict=True):
        logits = torch.cat([_logits_without(context, layer, images, unit, mean=mean) for unit in units])
        losses.append(_losses(logits, labels))
    return torch.cat(losses) - baseline[:, None]


def taylor(context: MeasureContext, layers: list[Layer], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Losses (N,), and by layer the squared first-order loss of zeroing each unit (N, U); arXiv 1906.10771."""
    losses, found = [], [[] for _ in layers]  # type: ignore[var-annotated]
    for part, labels in context.chunks(x, y):
        maps: list[list[Tensor]] = [[] for _ in layers]
        with torch.enable_grad(), contextlib.ExitStack() as stack:
            for layer, kept in zip(layers, maps, strict=True):
                stack.enter_context(layer.module.register_forward_pre_hook(_watch(kept)))
            logits = context.checked(context.model(part))
            loss = functional.cross_entropy(logits.double(), labels, reduction="none")
            gradients = torch.autograd.grad(loss.sum(), [kept[0] for kept in maps])
        losses.append(loss.detach())
        for layer, kept, gradient, into in zip(layers, maps, gradients, found, strict=True):
            into.append(_by_unit((gradient * kept[0]).detach().double(), layer.by_channel, sum_up=True) ** 2)
    return torch.cat(losses), [torch.cat(parts) for parts in found]


def _logits_without(context: MeasureContext, layer: Layer, x: Tensor, unit: Tensor, *, mean: bool) -> Tensor:
    """Logits (U, N, K) of all images with each of ``unit`` (U,) taken out.

    A vmap over units, which does not repeat what is independent of the unit. A network that vmap cannot take (it branches on
    values, or writes in place) passes each pair from its input.
    """
    removed = functional.one_hot(unit, layer.num_units)

    def without(taken: Tensor, images: Tensor) -> Tensor:
        with layer.module.register_forward_pre_hook(_without(layer, taken, mean=mean)):
            return context.model(images)  # type: ignore[no-any-return]

    try:
        logits = torch.vmap(lambda taken: without(taken[None], x))(removed)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        each = torch.arange(len(x), device=x.device).repeat(len(unit))
        logits = without(removed.repeat_interleave(len(x), 0), x[each]).view(len(unit), len(x), -1)
    return context.checked(logits.flatten(0, 1)).view_as(logits)


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """(N, U) from logits (U, N, K)."""
    found = functional.cross_entropy(logits.double().flatten(0, 1), y.repeat(len(logits)), reduction="none")
    return found.view(len(logits), -1).T


def _layer(name: str, module: nn.Module, gate_module: nn.Module, gate: Tensor, seen: Tensor, num_images: int) -> Layer:
    if not len(gate) == len(seen) == num_images:
        raise UserError(
            f"the gate of {name!r} is asked more than once in a forward pass: its layers cannot be told apart"
        )
    values, by_channel = _units(name, gate, seen)
    return Layer(
        name=name,
        module=module,
        gate_module=gate_module,
        by_channel=by_channel,
        gate=values.double(),
        activation=_by_unit(seen.abs().double(), by_channel),
        mean_gate=gate.mean(0, keepdim=True),
        mean_map=seen.mean(0, keepdim=True),
    )


def _units(name: str, gate: Tensor, seen: Tensor) -> tuple[Tensor, bool]:
    """Gate by unit (N, U), and whether a unit is a channel rather than a position."""
    if seen.dim() == 4:
        channels, places = seen.shape[1], seen.shape[2] * seen.shape[3]
        if gate.shape[1:] == (places, places):  # of pairs of positions: the attention received
            return gate.mean(1), False
        if gate.shape[1:] == (1, *seen.shape[2:]):
            return gate.flatten(1), False
        if gate.dim() == 4 and gate.shape[1] == channels:
            return _by_unit(gate, True), True
        if gate[0].numel() in (channels, places):
            return gate.flatten(1), gate[0].numel() == channels
    shapes = f"{tuple(gate.shape)} for a map {tuple(seen.shape)}"
    raise UserError(f"the gate of {name!r} gives {shapes}: expected one value a channel or a position of (N, C, H, W)")


def _by_unit(maps: Tensor, by_channel: bool, *, sum_up: bool = False) -> Tensor:
    """(N, C, H, W) to (N, C), or to (N, H * W): mean, or sum, over the rest."""
    flat = maps.flatten(2)
    dimension = 2 if by_channel else 1
    return flat.sum(dimension) if sum_up else flat.mean(dimension)


def _keep_output(into: list[Tensor]) -> Callable[..., None]:
    return lambda module, given, output: into.append(output)


def _keep_input(into: list[Tensor]) -> Callable[..., None]:
    return lambda module, given: into.append(given[0]) if len(given) == 1 else None


def _clamp(mean_gate: Tensor) -> Callable[..., Tensor]:
    return lambda module, given, output: mean_gate.expand_as(output)


def _watch(into: list[Tensor]) -> Callable[..., Any]:
    def hook(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        # the first layer's input may need no gradient of its own
        seen = given[0] if given[0].requires_grad else given[0].detach().requires_grad_()
        into.append(seen)
        return (seen,)

    return hook


def _without(layer: Layer, removed: Tensor, *, mean: bool) -> Callable[..., tuple[Tensor]]:
    """``removed`` (B, U) is 1 at the units taken out of an image (of all images if B is 1)."""

    def hook(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        seen = given[0]
        taken = _placed(layer, removed, seen)
        return (seen * (1 - taken) + (taken * layer.mean_map if mean else 0.0),)

    return hook


def _placed(layer: Layer, values: Tensor, seen: Tensor) -> Tensor:
    """``values`` (B, U) in a shape that broadcasts against the map ``seen`` (B, C, H, W)."""
    shape = (len(values), -1, 1, 1) if layer.by_channel else (len(values), 1, *seen.shape[2:])
    return values.to(seen.dtype).view(shape)
