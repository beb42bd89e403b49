"""https://arxiv.org/abs/1512.03385, table 1: what each layer of a network costs, in closed form, found by forward hooks.

convolution: 2 * (elements of the output) * (weights of one output channel)
linear:      2 * (elements of the output) * (input features)
matrix product written in a ``forward`` (non-local attention): 2 * (elements of the output) * (length of the inner sum)

A multiply-add counts as two, as in ``cost.py``, whose totals these rows add up to. All else counts as no FLOPs, as there:
norms, biases, ReLU, pooling, sigmoids, and the elementwise sums and products of merges and gates.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# each product and the position of the operand whose last axis is summed over
_PRODUCTS: dict[Any, int] = {
    torch.ops.aten.mm.default: 0,
    torch.ops.aten.bmm.default: 0,
    torch.ops.aten.addmm.default: 1,
    torch.ops.aten.baddbmm.default: 1,
}
# some placebos refuse a batch of one
_IMAGES = 2


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One row: a module's ``name`` in the network ('' is the network itself) and its class (``kind``).

    ``shape``: its output for one image, without the batch axis, at its last call; empty where it was not called or gives no
    tensor. ``params``: its own trained numbers, without those of modules inside it. ``flops`` and ``activations`` (elements
    of the output): of one image, summed over its calls, without modules inside it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    flops: int
    activations: int


def layer_costs(model: nn.Module, image_shape: tuple[int, int, int]) -> list[LayerCost]:
    """Cost of each layer for an image (C, H, W), in evaluation, in the order in which the layers finish.

    A module has a row if it computes something itself: it holds parameters, or its output is a new tensor, neither its
    input nor what the module before it gave. So blocks, merges, gates and forms have rows beside the layers inside them;
    sequences and identities have none. Parameters add up to ``num_params`` and FLOPs to ``num_flops``.

    Not counted: tensors that a ``forward`` makes on the way to its output (a ReLU between two layers, a pooled map), and
    the FLOPs of convolutions called as functions, of transposed convolutions and of torch's fused attention. No registered
    part has any of these three. A model on the ``meta`` device is counted without doing the arithmetic.
    """
    recorder = _Recorder(model)
    hooks = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(recorder.enter))
        hooks.append(module.register_forward_hook(recorder.leave))
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _Products(recorder.multiplied):
            model(torch.zeros(_IMAGES, *image_shape, device=next(model.parameters()).device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return recorder.rows()


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Tells ``found`` the FLOPs of every matrix product."""

    def __init__(self, found: Callable[[int], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            self._found(2 * out.numel() * args[_PRODUCTS[func]].shape[-1])
        return out


class _Recorder:
    """Adds up what happens between a module's entry and its exit. Numbers are of all images until ``rows``."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._running: list[nn.Module] = []
        self._flops: dict[nn.Module, int] = {}
        self._activations: dict[nn.Module, int] = {}
        # in the order of first exit
        self._shapes: dict[nn.Module, tuple[int, ...]] = {}
        self._last: object = None

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._running.append(module)

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._running.pop()
        handed_on = output is self._last or any(output is given for given in inputs)
        self._last = output
        if handed_on and module not in self._flops and not _own(module):
            return
        tensor = isinstance(output, Tensor)
        self._shapes[module] = tuple(output.shape[1:]) if tensor else ()
        if tensor and not handed_on:
            self._activations[module] = self._activations.get(module, 0) + output.numel()
            self._add(module, _layer_flops(module, output))

    def multiplied(self, flops: int) -> None:
        """A linear layer's product is in its own formula."""
        innermost = self._running[-1]
        if not isinstance(innermost, nn.Linear):
            self._add(innermost, flops)

    def _add(self, module: nn.Module, flops: int) -> None:
        self._flops[module] = self._flops.get(module, 0) + flops

    def rows(self) -> list[LayerCost]:
        """One row a module that ran, then those that hold parameters and did not. A shared parameter counts once."""
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
                    flops=self._flops.get(module, 0) // _IMAGES,
                    activations=self._activations.get(module, 0) // _IMAGES,
                )
            )
        return rows


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _layer_flops(module: nn.Module, output: Tensor) -> int:
    """FLOPs of a layer's call, from its sizes."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        inner = module.in_channels // module.groups * math.prod(module.kernel_size)
    elif isinstance(module, nn.Linear):
        inner = module.in_features
    else:
        inner = 0
    return 2 * output.numel() * inner
