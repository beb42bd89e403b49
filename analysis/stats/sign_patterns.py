"""Sums over random subsets of many differences, as the sign-flip test needs them: twelve differences at a time by table.

A subset is a row of random bits, twelve to a number. The sums over all 4,096 subsets of twelve differences stand in a table,
so one read of the table adds twelve members: 65,535 subsets of 1,000 differences take some milliseconds instead of a matrix
product with the bits. The bits are the same for every call: those of n differences are the first n of those of more. The
order of adding is fixed, so equal differences give equal sums on every machine.
"""

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

NUM_PATTERNS = 2**16
_SEED = 1969
_BITS = 12

Floats = NDArray[np.float64]


def all_subsets(d: Floats) -> tuple[Floats, Floats]:
    """Sum and size of every subset of ``d``, at the position whose bit i says whether difference i is a member."""
    sums, sizes = np.zeros(1), np.zeros(1)
    for value in d:
        sums, sizes = np.concatenate((sums, sums + value)), np.concatenate((sizes, sizes + 1.0))
    return sums, sizes


def sampled_subsets(d: Floats) -> tuple[Floats, Floats]:
    """Sums and sizes of ``NUM_PATTERNS`` subsets of ``d``: the empty one, then uniform draws with replacement."""
    sums, found = np.zeros(NUM_PATTERNS), np.empty(NUM_PATTERNS - 1)
    for i in range(0, len(d), _BITS):
        table, _ = all_subsets(d[i : i + _BITS])
        drawn = _drawn(i // _BITS)
        # clip: the fast mode, with nothing to clip
        table.take(drawn if len(table) == 2**_BITS else drawn & (len(table) - 1), out=found, mode="clip")
        sums[1:] += found
    return sums, _sizes(len(d))


@cache
def _drawn(place: int) -> NDArray[np.intp]:
    """Twelve bits of every drawn subset: whether differences 12 ``place`` to 12 ``place`` + 11 are members.

    As the integers that numpy takes by, for it would make them anew at every read.
    """
    generator = np.random.Generator(np.random.PCG64([_SEED, place]))
    return generator.integers(0, 2**_BITS, size=NUM_PATTERNS - 1, dtype=np.intp)


@lru_cache(maxsize=64)
def _sizes(num_pairs: int) -> Floats:
    sizes = np.zeros(NUM_PATTERNS)
    for i in range(0, num_pairs, _BITS):
        members = 2 ** min(_BITS, num_pairs - i) - 1
        sizes[1:] += np.bitwise_count(_drawn(i // _BITS) & members)
    sizes.flags.writeable = False
    return sizes
