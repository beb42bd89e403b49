"""What a sequential study is expected to cost, by simulation.

One comparison with normal differences and a margin of 1 is run through the interim looks many times, under a fixed seed. It is
decided at the first look at which zero (upwards) or the margin (downwards) lies outside the repeated interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.stats.sequential import first_rejections
from analysis.stats.sign_patterns import Floats

_NUM_STUDIES = 1000
# 512 patterns a study: fewer than in use, at the same level.
_EXACT = 10
_SEED = 24


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Means over simulated studies: blocks run, and the shares that end ``supported`` and ``refuted``."""

    blocks: float
    supported: float
    refuted: float


def expected_blocks(looks: Sequence[int], level: float, effect: float, spread: float) -> Expected:
    """Of a comparison whose differences have mean ``effect`` and standard deviation ``spread``, in margins.

    ``level`` is the claim's. Cost: a tenth of a second.
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    d = effect + spread * generator.standard_normal((_NUM_STUDIES, looks[-1]))
    above = _first(d, looks, level, upwards=True)
    below = _first(d - 1.0, looks, level, upwards=False)
    ended = np.minimum(np.minimum(above, below), len(looks) - 1)
    refuted = below < len(looks)
    return Expected(
        blocks=float(np.mean(np.asarray(looks)[ended])),
        supported=float(np.mean((above < len(looks)) & (above < below))),
        refuted=float(np.mean(refuted & (below <= above))),
    )


def _first(d: Floats, looks: Sequence[int], level: float, *, upwards: bool) -> NDArray[np.int64]:
    """The look at which zero is first rejected in one direction; ``len(looks)`` for never."""
    found = first_rejections(d, looks, level, exact=_EXACT)
    sums = np.stack([d[:, :n].sum(axis=1) for n in looks] + [np.zeros(len(d))])[found, np.arange(len(d))]
    return np.where((sums > 0) == upwards, found, len(looks))
