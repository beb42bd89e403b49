"""What several statistics of one network need, computed once: the same numbers alone, in a suite and in any order."""

from collections.abc import Callable, Hashable
from typing import TypeVar

from torch import Tensor

# Bytes held at most; what does not fit is computed each time.
MOST_BYTES = 2**28

Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


class Shared:
    """Tuples of tensors by key, at most ``MOST_BYTES``, held until ``clear``."""

    def __init__(self) -> None:
        self._held: dict[Hashable, tuple[Tensor, ...]] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes held."""
        return sum(_bytes(held) for held in self._held.values())

    def once(self, key: Hashable, make: Callable[[], Tensors]) -> Tensors:
        """``make()``, or its earlier result under ``key``; not to be written to."""
        if key in self._held:
            held: Tensors = self._held[key]  # type: ignore[assignment]  # what make gave
            return held
        made = make()
        self.put(key, made)
        return made

    def get(self, key: Hashable) -> tuple[Tensor, ...] | None:
        """The tensors held under ``key``, if any."""
        return self._held.get(key)

    def put(self, key: Hashable, made: tuple[Tensor, ...]) -> None:
        """Hold ``made``, if it fits."""
        if self.num_bytes + _bytes(made) <= MOST_BYTES:
            self._held[key] = made

    def clear(self) -> None:
        """Drop all."""
        self._held.clear()


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
