"""Fixed functions in the place of random draws: partners of images within a batch, and a hash of places.

Nothing is drawn inside ``forward``, so signs, masks and partners are the same on every device, after a resumption, and under
``vmap`` over replicates. Partners are a derangement of a batch's positions: no image is its own partner. In training the data
order makes it another image each time; in evaluation too a batch must hold at least two images. The integer hash is
T. Mueller's, with xor and multiplication.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from study.errors import UserError
from study.seeding import derive_seed

MASK = 0xFFFFFFFF
_MULTIPLIER = 0x45D9F3B  # of 27 bits, so that a product with 32 bits fits in int64


def hash32(values: Tensor) -> Tensor:
    """A 32-bit integer hash (multiply and fold, twice) of int64 ``values``, of which the lower 32 bits count."""
    hashed = values & MASK  # a new tensor: what follows is done in place, which halves the time
    for _ in range(2):
        hashed ^= hashed >> 16
        hashed *= _MULTIPLIER
        hashed &= MASK
    hashed ^= hashed >> 16
    return hashed


def hash_places(shape: torch.Size, device: torch.device, seed: Tensor) -> Tensor:
    """A hash of ``seed`` and of each place in ``shape``: int64 of 32 bits, the same on every device."""
    index = torch.arange(shape.numel(), device=device).view(shape)
    return hash32(hash32(index) ^ seed)


def partners(n: int, device: torch.device, *, level: str) -> Tensor:
    """For each of ``n`` positions another one, (n,) int64 on ``device``; ``level`` names who asks.

    Raises ``UserError`` for a batch of one.
    """
    if n < 2:
        raise UserError(f"{level} gates an image by another one: a batch of one has no other image")
    partner: Tensor = _constant(n, device)
    return partner


@functools.lru_cache(maxsize=64)
def derangement(n: int, device: torch.device) -> Tensor:
    """A fixed derangement of 0 ... n-1, n at least 2: one cycle in an order that depends on n alone.

    Not a roll by one: evaluation sets are often sorted by class, and a neighbour's gate would tell the class.
    """
    order = np.random.default_rng(derive_seed("derangement", n)).permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = np.roll(order, -1)
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        return torch.from_numpy(partner).to(device)


def _constant(n: int, device: torch.device) -> Tensor:
    """To torch.compile (``dynamic=False``) a constant: it depends on the shape alone."""
    return derangement(n, device)


# what torch.compiler.assume_constant_result sets: calling it here would import the compiler, over a second in every process
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]
