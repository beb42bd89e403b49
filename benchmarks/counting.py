"""https://docs.pytorch.org/docs/stable/notes/extending.html (dispatch modes): work that does not depend on the machine.

A device that is busy computing pays floating point operations, one that waits for the next launch (small networks on a GPU)
pays operator calls. A share of training that is small in both is small on either.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class Work(NamedTuple):
    """Floating point operations of convolutions and products, and calls of operators (views too), forward and backward."""

    flops: float
    calls: float

    def times(self, flops: float, calls: float) -> "Work":
        """So many times as much of each."""
        return Work(self.flops * flops, self.calls * calls)

    def plus(self, other: "Work") -> "Work":
        """Both together."""
        return Work(self.flops + other.flops, self.calls + other.calls)

    def shares(self, whole: "Work") -> tuple[float, float]:
        """Each as a share of ``whole``."""
        return self.flops / whole.flops, self.calls / whole.calls


class _Calls(TorchDispatchMode):
    """Counts what reaches the operators of torch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Count and call."""
        self.num += 1
        return func(*args, **(kwargs or {}))


def counted(work: Callable[[], Any]) -> Work:
    """What ``work`` takes, on the CPU."""
    with FlopCounterMode(display=False) as flops, _Calls() as calls:
        work()
    return Work(float(flops.get_total_flops()), float(calls.num))
