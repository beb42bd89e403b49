"""Out of memory: the same work again with half as many images at a time, down to one; results change by rounding only."""

from collections.abc import Callable
from typing import TypeVar

import torch

from study.errors import UserError

T = TypeVar("T")
# what torch, cuBLAS, cuSOLVER, cuDNN and Metal say where they do not raise the class of their own
_SIGNS = ("out of memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED", "not enough memory")


def halving(chunk: int, work: Callable[[int], T], what: str) -> T:
    """``work(chunk)``, where memory is out ``work`` of half the chunk, and so on. Other errors pass.

    Raises ``UserError`` that names ``what`` where single images do not fit either.
    """
    while True:
        try:
            return work(chunk)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
        # outside the handler, so that the traceback no longer holds the tensors that filled the memory
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        if chunk == 1:
            raise UserError(f"{what} does not fit into memory, not with one image at a time either: {reason}")
        chunk //= 2


def _out_of_memory(error: RuntimeError | MemoryError) -> bool:
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(sign in str(error) for sign in _SIGNS)
