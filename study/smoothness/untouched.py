"""A network lent out: whatever is done to it meanwhile, it is handed back as it was; and its weights, each once.

A layer may have several names (``conv1``, and again a part of ``features``), and a tensor may stand in several layers.
``torch.func.functional_call`` given such a tensor leaves the new one behind at all names but the last. So weights are
replaced place by place, a place being a module and an attribute of it.

Source: https://docs.pytorch.org/docs/stable/generated/torch.func.functional_call.html
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """On leaving, also by an exception, all parameters and buffers of ``model`` are the same tensors with the same bytes.

    So are gradients, ``requires_grad`` and modes. Memory: a copy of the weights, of the buffers and of the gradients.
    """
    modes = {module: module.training for module in model.modules()}
    places = [
        (module, name, tensor)
        for module in model.modules()
        for named in (module.named_parameters, module.named_buffers)
        for name, tensor in named(recurse=False, remove_duplicate=False)
    ]
    held = {id(tensor): (tensor, tensor.detach().clone(), tensor.requires_grad) for *_, tensor in places}
    grads = {id(tensor): (tensor.grad, tensor.grad.clone()) for *_, tensor in places if tensor.grad is not None}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, name, tensor in places:
            if getattr(module, name, None) is not tensor:
                setattr(module, name, tensor)
        with torch.no_grad():
            for key, (tensor, before, trained) in held.items():
                _put_back(tensor, before)
                tensor.requires_grad_(trained)
                tensor.grad, gradient = grads.get(key, (None, None))
                if tensor.grad is not None and gradient is not None:
                    _put_back(tensor.grad, gradient)


def _put_back(tensor: Tensor, before: Tensor) -> None:
    if not torch.equal(tensor, before):
        tensor.copy_(before)


def places_of_weights(model: nn.Module) -> dict[str, list[str]]:
    """Each parameter once, by its first name, with one name for every place that holds it."""
    first: dict[nn.Parameter, str] = {}
    found: dict[str, list[str]] = {}
    for prefix, module in model.named_modules():  # each module once
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            found.setdefault(first.setdefault(parameter, name), []).append(name)
    return found


def with_weights(model: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The output of ``model`` for ``x`` with ``weights``, by first name, in all places of those parameters."""
    places = places_of_weights(model)
    given = {place: weight for name, weight in weights.items() for place in places[name]}
    output: Tensor = functional_call(model, given, (x,), tie_weights=False)
    return output
