"""Memory of a measurement: how many images pass at once (no result changes but by rounding), and what statistics share."""

from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from study.errors import UserError, out_of_memory

T = TypeVar("T")
# Bytes of shared results held at most; what does not fit is computed each time.
MOST_BYTES = 2**28
# Input values (channels times pixels) per forward pass, and the most images. A CPU is fastest while a layer's output stays
# below 32 MB, from where glibc returns each allocation (ResNet-20: 256 CIFAR images take .88 s, 512 take 1.42). A GPU wants
# few launches.
_ON_CPU = 2**20, 512
_ON_GPU = 2**23, 4096
_LEAST = 64


class Images(Protocol):
    """Float images in [0, 1], (N, C, H, W), by index: a tensor, or what makes floats of those that are asked for alone."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what an index gives."""
        ...

    @property
    def device(self) -> torch.device:
        """Of what an index gives."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice | int, /) -> Tensor: ...


def images_at_once(images: Images) -> int:
    """How many of ``images`` (N, ...) pass at once on their device: 256 of 3x32x32 on a CPU, 2,048 on a GPU."""
    values, most = _ON_CPU if images.device.type == "cpu" else _ON_GPU
    num = values // max(1, images[0].numel() if len(images) else 1)
    return int(min(max(2 ** (max(1, num).bit_length() - 1), _LEAST), most))


def halving(chunk: int, work: Callable[[int], T], what: str, used: Callable[[], int] | None = None) -> T:
    """``work(chunk)``, with half the chunk when memory is out. Raises ``UserError`` if one image does not fit either.

    ``used`` tells the largest number of images that passed at once (0: unknown). Where it is less than the chunk, half of it
    is next: any chunk above would be the same work again.
    """
    while True:
        try:
            return work(chunk)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
        # outside the handler, where the traceback no longer holds the tensors that filled the memory
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        if chunk == 1:
            raise UserError(f"{what} does not fit into memory, not with one image at a time either: {reason}")
        chunk = max(1, min(chunk, (used() if used else 0) or chunk) // 2)


class Shared:
    """What several statistics of one network need, computed once: tuples of tensors by key, held until ``clear``."""

    def __init__(self) -> None:
        self._held: dict[Hashable, tuple[Tensor, ...]] = {}
        # images in the largest part that was cut for a pass since it was set to 0
        self.largest_part = 0

    @property
    def num_bytes(self) -> int:
        """Bytes held."""
        return sum(_bytes(held) for held in self._held.values())

    def once(self, key: Hashable, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """``make()``, or its earlier result under ``key``; not to be written to."""
        found = self._held.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

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
