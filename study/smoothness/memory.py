"""Out of memory: the same work again with half as many images at a time, down to one; results change by rounding only."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from study.errors import UserError

T = TypeVar("T")
# what torch, cuBLAS, cuSOLVER, cuDNN and Metal say where they do not raise the class of their own
_SIGNS = ("out of memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED", "not enough memory")

# Input values (channels times pixels) in one forward pass. A CPU does best while a layer's output stays below 32 MB, where
# glibc begins to give every allocation back (ResNet-20: 256 CIFAR images take .88 s, 512 take 1.42); a GPU wants few launches.
_VALUES = {"cpu": 2**20}
_VALUES_ON_GPU = 2**23
_MOST = {"cpu": 512}
_MOST_ON_GPU = 4096
_LEAST = 64


def images_at_once(images: Tensor) -> int:
    """How many of ``images`` (N, ...) to pass through a network at a time on their device, a power of two.

    256 of 32x32 in colour on a CPU, 2,048 on a GPU. What does not fit after all is halved.
    """
    kind = images.device.type
    num = _VALUES.get(kind, _VALUES_ON_GPU) // max(1, images[0].numel() if len(images) else 1)
    return int(min(max(2 ** (max(1, num).bit_length() - 1), _LEAST), _MOST.get(kind, _MOST_ON_GPU)))


def halving(chunk: int, work: Callable[[int], T], what: str) -> T:
    """``work(chunk)``, where memory is out ``work`` of half the chunk, and so on. Other errors pass.

    Raises ``UserError`` that names ``what`` where single images do not fit either.
    """
    while True:
        try:
            return work(chunk)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
        # outside the handler, so that the traceback no longer holds the tensors that filled the memory
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        if chunk == 1:
            raise UserError(f"{what} does not fit into memory, not with one image at a time either: {reason}")
        chunk //= 2


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether that is what ``error`` says."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(sign in str(error) for sign in _SIGNS)
