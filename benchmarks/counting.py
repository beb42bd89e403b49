"""Work that does not depend on the machine, counted.

A device that is busy computing pays floating point operations, one that waits for the next launch (small networks on a GPU)
pays operator calls. A share of training that is small in both is small on either.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from study.models.operations import OperationCounter


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


def counted(work: Callable[[], Any]) -> Work:
    """What ``work`` takes, on the CPU."""
    with OperationCounter() as counter:
        work()
    return Work(float(counter.flops), float(counter.calls))
