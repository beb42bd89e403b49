"""R networks of one structure as one, by ``vmap`` over replicates.

``torch.func.stack_module_state`` stacks the parameters and buffers (batch norm's running statistics included) of all
replicates; ``functional_call`` runs one network on a replicate's values, ``vmap`` on all. A convolution becomes one with R
groups, a linear layer a batched product. Replicates do not mix, so NaN in one stays there.

Source: https://arxiv.org/abs/2102.02344
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from study.training.folded import fold_norms
from study.training.loop import DrawsEachStep


class Stack:
    """The state of R networks of one structure and mode: copied at the start, handed back by ``hand_back``.

    ``flat`` holds all trained parameters in one vector, the R replicates of a parameter side by side; ``params`` (R, ...) are
    views of it, leaves of autograd. ``channels_last``: convolution
    weights and images have channels innermost. ``folded``: batch norms train as one, which a compiler cannot see through.
    Raises ``ValueError`` for a network that cannot be stacked (``obstacle``).
    """

    def __init__(self, models: Sequence[nn.Module], *, channels_last: bool = False, folded: bool = True) -> None:
        if reason := obstacle(models[0]):
            raise ValueError(reason)
        self.models, self._channels_last = list(models), channels_last
        stacked, self.buffers = stack_module_state(self.models)
        trained = {name for name, parameter in models[0].named_parameters() if parameter.requires_grad}
        self._fixed = {name: value for name, value in stacked.items() if name not in trained}
        chosen = {name: value.detach() for name, value in stacked.items() if name in trained}
        self._shapes = {name: self._inward(value).shape for name, value in chosen.items()}
        self.flat = self.flattened(chosen.values())
        self.params = {name: piece.detach().requires_grad_() for name, piece in self.pieces(self.flat).items()}
        rows = torch.arange(len(models), device=self.flat.device)
        self._owner = torch.cat([rows.repeat_interleave(shape[1:].numel()) for shape in self._shapes.values()])
        self._structure = copy.deepcopy(models[0]).train()
        if len(models) == 1:
            self._leaves = self._owned()
        else:
            # without values of its own: ``functional_call`` supplies the replicates'
            self._structure.to("meta")
            if folded:
                fold_norms(self._structure)
            self._leaves = list(self.params.values())
        self._drawing = {name: copy.deepcopy(module).cpu() for name, module in _drawing(models[0])}

    def __len__(self) -> int:
        return len(self.models)

    def train(self, training: bool = True) -> None:
        """In training, as a stack is at first, buffers are updated."""
        self._structure.train(training)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (R, N, num_classes) of ``pixels`` (R, N, C, H, W)."""
        if self._channels_last:
            # as a convolution of R groups takes them: the channels of all replicates innermost
            pixels = pixels.permute(1, 3, 4, 0, 2).contiguous().permute(3, 0, 4, 1, 2)

        def one(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._structure, (params, buffers), (x,))
            return logits

        if len(self) == 1:
            single: Tensor = self._structure(pixels.squeeze(0)).unsqueeze(0)
            return single
        logits: Tensor = vmap(one)({**self.params, **self._fixed}, self.buffers, pixels)
        return logits

    def _owned(self) -> list[Tensor]:
        """For one replicate, the network owns the views and is called directly; its leaves."""
        leaves: list[Tensor] = []
        for name, value in self.params.items():
            parameter = self._structure.get_parameter(name)
            parameter.data = value.detach().squeeze(0)
            leaves.append(parameter)
        for name, value in self.buffers.items():
            prefix, _, leaf = name.rpartition(".")
            setattr(self._structure.get_submodule(prefix), leaf, value.squeeze(0))
        return leaves

    def spread(self, values: Tensor) -> Tensor:
        """Of a value per replicate (R,), one for each value of ``flat``."""
        # not by indexing, which takes ten times as long
        return values.index_select(0, self._owner)

    def flattened(self, values: Iterable[Tensor]) -> Tensor:
        """One vector like ``flat`` from a value (R, ...) per parameter."""
        return torch.cat([self._inward(value).flatten() for value in values])

    def gradients(self, objective: Tensor) -> list[Tensor | None]:
        """Gradients of a scalar in each parameter (R, ...); ``None`` for a parameter it does not depend on."""
        found = torch.autograd.grad(objective, self._leaves, allow_unused=True)
        return [value if value is None or len(self) > 1 else value.unsqueeze(0) for value in found]

    def pieces(self, flat: Tensor) -> dict[str, Tensor]:
        """Views (R, ...) of a vector like ``flat``, by parameter."""
        parts = torch.split(flat, [shape.numel() for shape in self._shapes.values()])
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: self._back(part.view(shape)) for (name, shape), part in named}

    def _inward(self, value: Tensor) -> Tensor:
        """(R, A, C, H, W) with the channels C moved last, where they lie innermost; any other value as it is."""
        return value.movedim(2, -1).contiguous() if self._channels_last and value.dim() == 5 else value

    def _back(self, value: Tensor) -> Tensor:
        """The same memory, (R, A, H, W, C), seen as (R, A, C, H, W)."""
        return value.movedim(-1, 2) if self._channels_last and value.dim() == 5 else value

    def start_step(self, seeds: Sequence[int]) -> None:
        """Have modules that draw each step (``DrawsEachStep``) draw, per replicate from its own seed."""
        for prefix, module in self._drawing.items():
            drawn: dict[str, list[Tensor]] = {name: [] for name in _passing(module)}
            for seed in seeds:
                module.start_step(seed)
                for name, values in drawn.items():
                    values.append(module.get_buffer(name).clone())
            for name, values in drawn.items():
                self.buffers[f"{prefix}.{name}"].copy_(torch.stack(values), non_blocking=True)

    @torch.no_grad()
    def hand_back(self) -> None:
        """Copy parameters and buffers back to the networks."""
        for index, model in enumerate(self.models):
            own = dict(model.named_parameters()) | dict(model.named_buffers())
            for name, stacked in {**self.params, **self.buffers}.items():
                own[name].copy_(stacked[index])


def obstacle(model: nn.Module) -> str:
    """Why replicates of ``model`` cannot train together; empty if they can."""
    for name, module in _drawing(model):
        if not _passing(module):
            return f"module {name!r} draws each step and keeps it in no buffer (persistent=False)"
    return ""


def _drawing(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, DrawsEachStep)]


def _passing(module: nn.Module) -> list[str]:
    """Names of the module's own non-persistent buffers."""
    return [name for name, _ in module.named_buffers(recurse=False) if name not in module.state_dict()]
