"""Explicit seeds: one derived seed per purpose, and no global random state.

Cells share random numbers because a seed is derived from what *should* be shared and from nothing else: replicate r of every
cell has the same split, data order, augmentation, noise draws and interpolation pairs.
"""

import hashlib

_SEED_BITS = 63


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on their order.

    Parts are hashed by ``repr``, so that ``1`` and ``"1"`` differ; use ints and strings only, whose ``repr`` is stable.
    """
    digest = hashlib.blake2b("\x1f".join(map(repr, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _SEED_BITS)
