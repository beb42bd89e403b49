"""The optimisers of R replicates as one, and the averages of their weights, on all parameters in one vector.

A few operations for any number of parameters. torch's own take one learning rate and decay for a tensor, and here they differ
from replicate to replicate within it; so the steps are written out, and tests hold them to torch's.

Source: https://arxiv.org/abs/2102.02344
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from study.training.average import Average, averaged_state, exchange
from study.training.stack import Stack

# what ``torch.nn.utils.clip_grad_norm_`` adds to a norm
_CLIP_EPS = 1e-6


class StackedOptimizer:
    """Base: settings and state come from the replicates' ``optimizers``, of one kind, and state is handed back.

    ``state``: by torch's name, one vector like ``stack.flat``. ``clip_norms``: the largest norm of each replicate's gradient;
    none are clipped without it.
    """

    names: tuple[str, ...] = ()
    # what ``plan`` gives each step
    num_rows = 1

    def __init__(
        self, stack: Stack, optimizers: Sequence[torch.optim.Optimizer], clip_norms: Sequence[float] | None = None
    ) -> None:
        self._stack, self._optimizers = stack, list(optimizers)
        self.state = {name: torch.zeros_like(stack.flat) for name in self.names}
        # steps taken since the optimiser was made
        self.steps = [0] * len(self._optimizers)
        self._clip = None if clip_norms is None else stack.flat.new_tensor(clip_norms)
        spared = {id(parameter) for group in optimizers[0].param_groups[1:] for parameter in group["params"]}
        self._spared = frozenset(name for name in stack.params if id(stack.models[0].get_parameter(name)) in spared)
        self._unused: frozenset[str] = frozenset()
        self._decay = self._decays()
        for row, held, views in self._held():
            for name, view in views.items():
                if held.get(name) is not None:
                    view.copy_(held[name])
            self.steps[row] = max(self.steps[row], int(held.get("step", 0)))

    def reset(self) -> None:
        """As if the optimisers were made anew."""
        for vector in self.state.values():
            vector.zero_()
        self.steps = [0] * len(self.steps)

    def plan(self, rates: Sequence[Sequence[float]]) -> list[list[list[float]]]:
        """From learning rates (steps, R), what each of the next steps is given: (steps, K, R), counted as taken."""
        return [[list(row)] for row in rates]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], given: Tensor) -> None:
        """One step, the first rows of ``given`` being as ``plan`` says (K, R); ``gradients`` as in ``stack.params``.

        A parameter without a gradient stays as it is.
        """
        named = zip(self._stack.params.items(), gradients, strict=True)
        whole = [(name, value, gradient) for (name, value), gradient in named]
        unused = frozenset(name for name, _, gradient in whole if gradient is None)
        if unused != self._unused:
            self._unused, self._decay = unused, self._decays(unused)
        flat = self._stack.flattened(
            torch.zeros_like(value) if gradient is None else gradient for _, value, gradient in whole
        )
        if self._clip is not None:
            norms = [torch.linalg.vector_norm(each.flatten(1), dim=1) for each in gradients if each is not None]
            total = torch.linalg.vector_norm(torch.stack(norms), dim=0)
            flat.mul_(self._stack.spread((self._clip / (total + _CLIP_EPS)).clamp(max=1.0)))
        self._move(flat, *map(self._stack.spread, given[: self.num_rows]))

    def _move(self, gradient: Tensor, *given: Tensor) -> None:
        raise TypeError(f"{type(self).__name__} defines no step")

    @torch.no_grad()
    def hand_back(self) -> None:
        """Copy the state to the replicates' optimisers."""
        for row, held, views in self._held():
            held |= {name: view.clone() for name, view in views.items()} | self._counted(row)

    def _counted(self, row: int) -> dict[str, Tensor]:
        """What torch keeps beside ``state``."""
        return {}

    def _each(self, setting: str) -> Tensor:
        """A setting of each replicate, for each value of ``stack.flat``."""
        chosen = [self._setting(optimizer.param_groups[0], setting) for optimizer in self._optimizers]
        return self._stack.spread(self._stack.flat.new_tensor(chosen))

    def _setting(self, group: dict[str, Any], setting: str) -> float:
        return float(group[setting])

    def _decays(self, unused: frozenset[str] = frozenset()) -> Tensor:
        """Weight decay of each value: none of parameters that are spared it, or have no gradient."""
        decays = self._each("weight_decay")
        for name, piece in self._stack.pieces(decays).items():
            if name in self._spared or name in unused:
                piece.zero_()
        return decays

    def _held(self) -> list[tuple[int, Any, dict[str, Tensor]]]:
        """Per parameter and replicate: the replicate, its optimiser's state, and the views of ours by name."""
        pieces = {name: self._stack.pieces(vector) for name, vector in self.state.items()}
        found = []
        for parameter in self._stack.params:
            if parameter not in self._unused:
                for row, (model, optimizer) in enumerate(zip(self._stack.models, self._optimizers, strict=True)):
                    views = {name: held[parameter][row] for name, held in pieces.items()}
                    found.append((row, optimizer.state[model.get_parameter(parameter)], views))
        return found


class StackedSGD(StackedOptimizer):
    """g' = g + weight_decay w, v = momentum v + g', w = w - lr v; with Nesterov's momentum w = w - lr (g' + momentum v)."""

    names = ("momentum_buffer",)

    def __init__(
        self, stack: Stack, optimizers: Sequence[torch.optim.Optimizer], clip_norms: Sequence[float] | None = None
    ) -> None:
        super().__init__(stack, optimizers, clip_norms)
        self._momentum = self._each("momentum")
        self._nesterov = bool(optimizers[0].param_groups[0]["nesterov"])

    def _move(self, gradient: Tensor, *given: Tensor) -> None:
        gradient.addcmul_(self._stack.flat, self._decay)
        velocity = self.state["momentum_buffer"].mul_(self._momentum).add_(gradient)
        moved = gradient.addcmul_(velocity, self._momentum) if self._nesterov else velocity
        self._stack.flat.addcmul_(moved, given[0], value=-1)

    def _held(self) -> list[tuple[int, Any, dict[str, Tensor]]]:
        """Without momentum torch keeps no state."""
        moving = [optimizer.param_groups[0]["momentum"] != 0 for optimizer in self._optimizers]
        return [each for each in super()._held() if moving[each[0]]]


class StackedAdamW(StackedOptimizer):
    """w = w - lr weight_decay w, m = beta1 m + (1 - beta1) g, s = beta2 s + (1 - beta2) g^2, then the step of t.

    w = w - lr / (1 - beta1^t) m / (sqrt(s) / sqrt(1 - beta2^t) + eps). What depends on t alone is planned in double precision.
    """

    names = ("exp_avg", "exp_avg_sq")
    num_rows = 3

    def __init__(
        self, stack: Stack, optimizers: Sequence[torch.optim.Optimizer], clip_norms: Sequence[float] | None = None
    ) -> None:
        super().__init__(stack, optimizers, clip_norms)
        self._beta1, self._beta2, self._eps = (self._each(name) for name in ("beta1", "beta2", "eps"))

    def plan(self, rates: Sequence[Sequence[float]]) -> list[list[list[float]]]:
        """Rows of a step: learning rate, step size, square root of the second correction."""
        planned = []
        betas = [optimizer.param_groups[0]["betas"] for optimizer in self._optimizers]
        for row in rates:
            self.steps = [taken + 1 for taken in self.steps]
            counted = list(zip(row, betas, self.steps, strict=True))
            sizes = [rate / (1 - beta1**taken) for rate, (beta1, _), taken in counted]
            roots = [(1 - beta2**taken) ** 0.5 for _, (_, beta2), taken in counted]
            planned.append([list(row), sizes, roots])
        return planned

    def _move(self, gradient: Tensor, *given: Tensor) -> None:
        rate, size, root = given
        self._stack.flat.mul_(1 - rate * self._decay)
        mean = self.state["exp_avg"].lerp_(gradient, 1 - self._beta1)
        square = self.state["exp_avg_sq"].mul_(self._beta2).addcmul_(gradient.square(), 1 - self._beta2)
        self._stack.flat.addcdiv_(size * mean, (square.sqrt() / root).add_(self._eps), value=-1)

    def _counted(self, row: int) -> dict[str, Tensor]:
        return {"step": torch.tensor(float(self.steps[row]))}

    def _setting(self, group: dict[str, Any], setting: str) -> float:
        named = dict(zip(("beta1", "beta2"), group["betas"], strict=True))
        return float({**group, **named}[setting])


def stacked_optimizer(
    stack: Stack, optimizers: Sequence[torch.optim.Optimizer], clip_norms: Sequence[float] | None = None
) -> StackedOptimizer:
    """That of the kind of ``optimizers``."""
    kind = StackedAdamW if isinstance(optimizers[0], torch.optim.AdamW) else StackedSGD
    return kind(stack, optimizers, clip_norms)


class StackedAverage:
    """The averages of a stack's replicates, from ``averages`` where these are not empty, handed back by ``hand_back``."""

    def __init__(self, stack: Stack, averages: Sequence[Average]) -> None:
        self._stack = stack
        self._flat = stack.flat.clone()
        names = averaged_state(stack.models[0])
        self._buffers = {name: value.clone() for name, value in stack.buffers.items() if name in names}
        self.pieces = {**stack.pieces(self._flat), **self._buffers}
        for row, average in enumerate(averages):
            for name, piece in self.pieces.items() if average else ():
                piece[row].copy_(average[name])

    @property
    def tensors(self) -> list[Tensor]:
        """What a step changes."""
        return [self._flat, *self._buffers.values()]

    @torch.no_grad()
    def follow(self, weights: Tensor) -> None:
        """Take a step's weights in by the parts ``weights`` (R,)."""
        self._flat.lerp_(self._stack.flat, self._stack.spread(weights))
        for name, buffer in self._buffers.items():
            part = weights.to(buffer).view(-1, *[1] * (buffer.dim() - 1))
            buffer.lerp_(self._stack.buffers[name], part)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the stack has the averages for its weights."""
        pairs = {"flat": self._flat, **self._buffers}, {"flat": self._stack.flat, **self._stack.buffers}
        exchange(*pairs)
        try:
            yield
        finally:
            exchange(*pairs)

    @torch.no_grad()
    def hand_back(self) -> list[Average]:
        """Each replicate's average; what is not trained is the network's."""
        return [
            {
                name: (self.pieces[name][row] if name in self.pieces else value).clone()
                for name, value in averaged_state(model).items()
            }
            for row, model in enumerate(self._stack.models)
        ]
