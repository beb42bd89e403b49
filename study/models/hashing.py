"""An integer hash (T. Mueller's, with xor and multiplication) in the place of random numbers.

Nothing is drawn inside ``forward``: signs and masks are a hash of a place's index and of a seed kept in a buffer, so they
are the same on every device, after a resumption, and under ``vmap`` over replicates.
"""

from torch import Tensor

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
