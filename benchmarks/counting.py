"""Work that does not depend on the machine, counted by a dispatch mode of torch.

A device that is busy computing pays floating point operations, one that waits for the next launch (small networks on a GPU)
pays operator calls. A share of training that is small in both is small on either.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


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


class _Counter(TorchDispatchMode):
    """Counts what reaches the operators of torch.

    With the formulas of ``FlopCounterMode``, which itself follows modules and so cannot follow gradients in the input.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Count and call."""
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def counted(work: Callable[[], Any]) -> Work:
    """What ``work`` takes, on the CPU."""
    with _Counter() as counter:
        work()
    return Work(float(counter.flops), float(counter.calls))
