"""What a network costs: parameters, FLOPs and activations, in total and layer by layer.

torch's formulas give the FLOPs of convolutions, linear layers and matrix products; a multiply-add counts as two FLOPs. All
else counts as none: norms, biases, ReLU, pooling, sigmoids, and the elementwise sums and products of merges and gates.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from study.models.operations import OperationCounter

# not one: a placebo that gates an image by another one refuses a batch of one
_IMAGES = 2


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One row: a module's ``name`` in the network ('' is the network itself) and its class (``kind``).

    ``shape``: its output for one image, without the batch axis, at its last call; empty where it was not called or gives no
    tensor. ``params``: its own trained numbers, without frozen ones and those of modules inside it. ``flops`` and
    ``activations`` (elements of the output): of one image, summed over its calls, without modules inside it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    flops: int
    activations: int


def num_params(model: nn.Module) -> int:
    """Number of trained parameters: those that ask for a gradient, each once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def num_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """FLOPs of one forward pass of one image (C, H, W), in evaluation."""
    with _counting(model, image_shape) as (counter, forward):
        forward()
        return counter.flops // _IMAGES


def layer_costs(model: nn.Module, image_shape: tuple[int, int, int]) -> list[LayerCost]:
    """Cost of each layer for an image (C, H, W), in evaluation, in the order in which the layers finish.

    A module has a row if it computes something itself: it holds parameters, or its output is a new tensor, neither its
    input nor what the module before it gave. So blocks, merges, gates and forms have rows beside the layers inside them;
    sequences and identities have none. Parameters add up to ``num_params`` and FLOPs to ``num_flops``.

    Tensors that a ``forward`` makes on the way to its output (a ReLU between two layers, a pooled map) are no activations.
    A model on the ``meta`` device is counted without doing the arithmetic.
    """
    with _counting(model, image_shape) as (counter, forward):
        recorder = _Recorder(model, counter)
        with ExitStack() as hooks:
            for module in model.modules():
                hooks.enter_context(module.register_forward_pre_hook(recorder.enter))
                hooks.enter_context(module.register_forward_hook(recorder.leave))
            forward()
    return recorder.rows()


@contextmanager
def _counting(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> Iterator[tuple[OperationCounter, Callable[[], Any]]]:
    """A counter, and the forward pass of ``_IMAGES`` images that it counts; in evaluation, without gradients."""
    training, images = model.training, torch.zeros(_IMAGES, *image_shape, device=next(model.parameters()).device)
    model.eval()
    try:
        with torch.no_grad(), OperationCounter() as counter:
            yield counter, lambda: model(images)
    finally:
        model.train(training)


class _Recorder:
    """Adds up what happens between a module's entry and its exit. Numbers are of all images until ``rows``."""

    def __init__(self, model: nn.Module, counter: OperationCounter) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._counter = counter
        # of each module that runs: FLOPs before it, and those of the modules inside it
        self._running: list[list[int]] = [[0, 0]]
        self._flops = Counter[nn.Module]()
        self._activations = Counter[nn.Module]()
        # in the order of first exit
        self._shapes: dict[nn.Module, tuple[int, ...]] = {}
        self._last: object = None

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._running.append([self._counter.flops, 0])

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        before, inside = self._running.pop()
        spent = self._counter.flops - before
        self._running[-1][1] += spent
        flops = spent - inside
        handed_on = output is self._last or any(output is given for given in inputs)
        self._last = output
        if handed_on and not flops and not _own(module):
            return
        self._shapes[module] = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        self._flops[module] += flops
        if isinstance(output, Tensor) and not handed_on:
            self._activations[module] += output.numel()

    def rows(self) -> list[LayerCost]:
        """One row per module that ran, then those that hold parameters and did not. A shared parameter counts once."""
        counted: set[nn.Parameter] = set()
        rows = []
        for module in dict.fromkeys((*self._shapes, *(module for module in self._names if _own(module)))):
            own = [parameter for parameter in _own(module) if parameter not in counted]
            counted.update(own)
            rows.append(
                LayerCost(
                    name=self._names[module],
                    kind=type(module).__name__,
                    shape=self._shapes.get(module, ()),
                    params=sum(parameter.numel() for parameter in own),
                    flops=self._flops[module] // _IMAGES,
                    activations=self._activations[module] // _IMAGES,
                )
            )
        return rows


def _own(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
