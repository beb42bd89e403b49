"""A training step as one CUDA graph.

A step of a small network is hundreds of kernels of a few microseconds: the host cannot launch them as fast as the GPU
finishes them. Captured once, they are launched together.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# torch's own advice: what is allocated once, such as cuDNN's workspaces, exists after a few steps.
_WARM_UP = 3


class Graphed:
    """``step``, captured at the first call and replayed from then on; returns nothing.

    ``step`` takes tensors of the same shapes each time and changes ``state`` in place. Warm-up steps do not count: ``state``
    is restored after them. The graph keeps the memory of one step.
    """

    def __init__(self, step: Callable[..., None], state: Sequence[Tensor]) -> None:
        self._step, self._state = step, list(state)
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> None:
        """Take the step."""
        if self._replay is None:
            self._inputs = [value.clone() for value in inputs]
            before = [value.clone() for value in self._state]
            warm_up(self._once)
            with torch.no_grad():
                for value, held in zip(self._state, before, strict=True):
                    value.copy_(held)
            self._replay = capture(self._once)
        for held, value in zip(self._inputs, inputs, strict=True):
            held.copy_(value, non_blocking=True)
        self._replay()

    def _once(self) -> None:
        self._step(*self._inputs)


def warm_up(step: Callable[[], None]) -> None:
    """Run ``step`` a few times on a side stream, as capture requires."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)


def capture(step: Callable[[], None]) -> Callable[[], None]:
    """A function that replays ``step``; capturing does not run it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
