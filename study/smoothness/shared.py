"""https://doi.org/10.1038/218019a0 (Michie 1968, memo functions): what several statistics of one network need, computed once.

A value is made the same way whoever asks first, from what its key names and nothing else, so a statistic has the same numbers
alone and in a suite, in whatever order.
"""

from collections.abc import Callable, Hashable
from typing import TypeVar

from torch import Tensor

# bytes held at most; what does not fit is computed anew each time
MOST_BYTES = 2**28

Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


class Shared:
    """Tuples of tensors by key, computed when they are first asked for, until ``clear``; ``MOST_BYTES`` of them at most."""

    def __init__(self) -> None:
        self._held: dict[Hashable, tuple[Tensor, ...]] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes held."""
        return sum(_bytes(held) for held in self._held.values())

    def once(self, key: Hashable, make: Callable[[], Tensors]) -> Tensors:
        """``make()``, or what it gave before under ``key``. Not to be written to."""
        if key in self._held:
            held: Tensors = self._held[key]  # type: ignore[assignment]  # what make gave
            return held
        made = make()
        self.put(key, made)
        return made

    def get(self, key: Hashable) -> tuple[Tensor, ...] | None:
        """What is held under ``key``."""
        return self._held.get(key)

    def put(self, key: Hashable, made: tuple[Tensor, ...]) -> None:
        """Hold ``made``, if it fits."""
        if self.num_bytes + _bytes(made) <= MOST_BYTES:
            self._held[key] = made

    def clear(self) -> None:
        """Hold nothing."""
        self._held.clear()


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
