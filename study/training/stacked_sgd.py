"""https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html: SGD on R replicates, each with its settings.

As ``torch.optim.SGD`` with dampening 0: g' = g + weight_decay w, v = momentum v + g', w = w - lr v. All values lie in one
vector (``Stack.flat``), so a step is three operations, however many parameters there are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from study.training.stack import Stack


class StackedSGD:
    """Moves ``stack.flat``. Starts from the velocities in ``optimizers``, one a replicate, and hands them back there."""

    def __init__(self, stack: Stack, optimizers: Sequence[torch.optim.SGD]) -> None:
        self._stack, self._optimizers = stack, list(optimizers)
        self.velocity = torch.zeros_like(stack.flat)
        self._decay = self._each("weight_decay")
        self._momentum = self._each("momentum")
        self._undecayed: frozenset[str] = frozenset()
        for held, value in self._held():
            if held is not None and held.get("momentum_buffer") is not None:
                value.copy_(held["momentum_buffer"])

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], rates: Tensor) -> None:
        """One step from ``gradients``, in the order of ``stack.params``, with learning rates (R,) on the device.

        A parameter without a gradient is left alone, by weight decay too.
        """
        named = zip(self._stack.params.items(), gradients, strict=True)
        whole = [(name, value, gradient) for (name, value), gradient in named]
        self._spare(frozenset(name for name, _, gradient in whole if gradient is None))
        flat = self._stack.flattened(
            torch.zeros_like(value) if gradient is None else gradient for _, value, gradient in whole
        )
        flat.addcmul_(self._stack.flat, self._decay)
        self.velocity.mul_(self._momentum).add_(flat)
        self._stack.flat.addcmul_(self.velocity, rates[self._stack.owner], value=-1)

    @torch.no_grad()
    def hand_back(self) -> None:
        """Give each replicate's optimiser its velocities, as if it had made the steps itself."""
        for held, value in self._held():
            if held is not None:
                held["momentum_buffer"] = value.clone()

    def _each(self, setting: str) -> Tensor:
        chosen = [optimizer.param_groups[0][setting] for optimizer in self._optimizers]
        values = torch.tensor(chosen, dtype=self._stack.flat.dtype, device=self._stack.flat.device)
        return values[self._stack.owner]

    def _spare(self, names: frozenset[str]) -> None:
        """No weight decay for these parameters."""
        if names != self._undecayed:
            self._undecayed, self._decay = names, self._each("weight_decay")
            for name, piece in self._stack.pieces(self._decay).items():
                if name in names:
                    piece.zero_()

    def _held(self) -> list[tuple[dict[str, Tensor] | None, Tensor]]:
        """For every parameter and replicate, what its optimiser holds, and the view of its velocity.

        ``None`` without momentum: such an optimiser holds nothing.
        """
        found: list[tuple[dict[str, Tensor] | None, Tensor]] = []
        for name, piece in self._stack.pieces(self.velocity).items():
            given = zip(self._stack.models, self._optimizers, piece.unbind(), strict=True)
            for model, optimizer, value in given:
                moving = optimizer.param_groups[0]["momentum"] != 0
                found.append((optimizer.state[model.get_parameter(name)] if moving else None, value))
        return found
