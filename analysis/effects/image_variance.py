"""The second interval of test accuracy: replicates and test images both count as drawn at random.

All replicates of a study are tested on the same images. So the mean difference in accuracy varies with the draw of replicates
and with the draw of images. With D[r, i] the difference in correctness of replicate r on image i, n replicates and N images,
the variance of its mean is

    s2_replicate / n + s2_image / N - s2_residual / (n N),

the variance of the replicates' means, that of the images' means, and the residual mean square of the two-way layout, which is
in both of the others. In mean squares it is (MS_replicate + MS_image - MS_residual) / (n N). The share of replicates and that
of images, differences with MS_residual, are floored at zero. The interval is by t, its degrees of freedom after Satterthwaite
(1946).
Source: https://doi.org/10.1198/jbes.2010.07136 (Cameron, Gelbach, Miller 2011)
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.effects.compare import pair_up
from analysis.effects.readings import Reading, Side
from analysis.trials.grid import DIVERGED, ConfirmGrid
from study.results.ledger import Contents

OUTCOME = "test/accuracy"
COLUMNS = ("images_low", "images_high", "images_se", "images_df", "p_images", "n_images")


@dataclass(frozen=True, kw_only=True)
class TwoWay:
    """Mean squares of a replicates x images layout, one value in each place, and the variance of its mean."""

    mean: float
    num_replicates: int
    num_images: int
    ms_replicate: float
    ms_image: float
    ms_residual: float

    @property
    def _terms(self) -> list[tuple[float, int]]:
        """The mean squares that make up the variance, each with its sign, and their degrees of freedom."""
        replicates, images = float(self.ms_replicate > self.ms_residual), float(self.ms_image > self.ms_residual)
        n, num = self.num_replicates - 1, self.num_images - 1
        return [
            (replicates * self.ms_replicate, n),
            (images * self.ms_image, num),
            ((1 - replicates - images) * self.ms_residual, n * num),
        ]

    @property
    def standard_error(self) -> float:
        """Of the mean over replicates and images, both drawn at random."""
        return float(np.sqrt(sum(term for term, _ in self._terms) / (self.num_replicates * self.num_images)))

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom of ``standard_error`` squared; those of replicates where it is zero."""
        below = sum(term**2 / degrees for term, degrees in self._terms)
        return sum(term for term, _ in self._terms) ** 2 / below if below > 0 else float(self.num_replicates - 1)


def two_way(values: NDArray[np.integer[Any]], scale: float = 1.0) -> TwoWay | None:
    """The layout of ``values`` / ``scale``, whole numbers (num_replicates, num_images); ``None`` below two of either.

    Sums are of whole numbers, hence exact. One pass over the values.
    """
    n, num = values.shape
    if n < 2 or num < 2:
        return None
    rows, columns = values.sum(axis=1, dtype=np.int64), values.sum(axis=0, dtype=np.int64)
    total, squares = int(rows.sum()), int(np.einsum("ri,ri->", values, values, dtype=np.int64))
    centre = total**2 / (n * num)
    by_replicate = float(np.dot(rows, rows)) / num - centre
    by_image = float(np.dot(columns, columns)) / n - centre
    residual = max(squares - centre - by_replicate - by_image, 0.0)
    unit = scale**2
    return TwoWay(
        mean=total / (n * num) / scale,
        num_replicates=n,
        num_images=num,
        ms_replicate=max(by_replicate, 0.0) / (n - 1) / unit,
        ms_image=max(by_image, 0.0) / (num - 1) / unit,
        ms_residual=residual / ((n - 1) * (num - 1)) / unit,
    )


Correct = Mapping[str, tuple[int, bytes]]


def correctness(contents: Contents) -> Correct:
    """Trial key -> number of test images, and as packed bits which of them the network names rightly; where recorded.

    Raises ``ValueError`` for a record whose bits do not fit its number of images.
    """
    found = {}
    for key, record in contents.replicates.items():
        if num := record.get("num_test", 0):
            bits = base64.b64decode(record.get("test_correct", ""))
            if len(bits) != -(-num // 8):
                raise ValueError(f"trial {key}: {len(bits)} bytes of correctness for {num} test images")
            found[key] = num, bits
    return found


class ImageVariance:
    """The columns that count test images, reading by reading; correctness is unpacked only when a reading asks for it."""

    def __init__(self, grid: ConfirmGrid, correct: Correct) -> None:
        nothing = 0, b""
        # one more entry, which NO_RECORD points to
        held = [correct.get(key, nothing) for key in grid.confirm["trial_key"].to_pylist()] + [nothing]
        self._num = np.array([num for num, _ in held], dtype=np.int64)
        self._bits = [bits for _, bits in held]
        self._chance = grid.chance

    def numbers(self, reading: Reading, alpha: float) -> dict[str, Any]:
        """The columns ``COLUMNS`` of a reading of test accuracy; null unless every eligible pair has its correctness."""
        used = np.isfinite(pair_up(reading)[0])
        arm, reference = (side.only(slice(None), used) for side in (reading.arm, reading.reference))
        trained = [self._num[side.rows[side.states != DIVERGED]] for side in (arm, reference)]
        sizes = np.unique(np.concatenate(trained)).tolist()
        layout = None
        if len(sizes) == 1 and sizes[0]:
            # a diverged network names each image rightly with the probability of guessing: in whole numbers, once in `classes`
            diverged = any((side.states == DIVERGED).any() for side in (arm, reference))
            classes = round(1 / self._chance[reading.dataset]) if diverged else 1
            ours, theirs = (self._sum(side, sizes[0], classes) for side in (arm, reference))
            layout = two_way(ours - theirs, scale=len(arm.rows) * classes)
        if layout is None:
            return dict.fromkeys(COLUMNS)
        error, degrees = layout.standard_error, layout.degrees
        p = float(2 * stats.t.sf(abs(layout.mean) / error, degrees)) if error else float(layout.mean == 0)
        limits = t_interval(layout.mean, error, degrees, alpha)
        return dict(zip(COLUMNS, (*limits, error, degrees, p, layout.num_images), strict=True))

    def _sum(self, side: Side, num: int, classes: int) -> NDArray[np.int32]:
        """``classes`` times in how many strata each replicate names each image rightly: (num_replicates, num)."""
        found = np.zeros((side.rows.shape[1], num), dtype=np.int32)
        for rows, states in zip(side.rows, side.states, strict=True):
            trained = states != DIVERGED
            found[~trained] += 1
            packed = np.frombuffer(b"".join(self._bits[i] for i in rows[trained]), np.uint8)
            if packed.size:
                bits = np.unpackbits(packed.reshape(np.count_nonzero(trained), -1), axis=1, count=num)
                found[trained] += classes * bits.astype(np.int32)
        return found


def t_interval(mean: float, standard_error: float, degrees: float, level: float) -> tuple[float, float]:
    """The two-sided interval at 1 - ``level`` of a mean, in its unit."""
    half = float(stats.t.ppf(1 - level / 2, degrees)) * standard_error
    return mean - half, mean + half


def images_interval(row: Mapping[str, Any], level: float) -> tuple[float, float] | None:
    """The interval at 1 - ``level`` that counts test images too, from a row of the effects table, if it has one."""
    if row["images_se"] is None:
        return None
    return t_interval(row["mean_difference"], row["images_se"], row["images_df"], level)


def hull(flips: tuple[float, float], images: tuple[float, float] | None) -> tuple[float, float]:
    """The interval that holds both: of the two methods neither alone may decide."""
    return flips if images is None else (min(flips[0], images[0]), max(flips[1], images[1]))


def row_hull(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """The hull at the study's alpha, from a row of the effects table; ``None`` without pairs."""
    if row["ci_low"] is None:
        return None
    images = None if row["images_low"] is None else (row["images_low"], row["images_high"])
    return hull((row["ci_low"], row["ci_high"]), images)


def deciding_p(row: Mapping[str, Any]) -> float | None:
    """The p that Holm's procedure takes: the larger one, as the hull decides; ``None`` without pairs."""
    found = [row[name] for name in ("p_sign_flip", "p_images") if row[name] is not None]
    return max(found, default=None)
