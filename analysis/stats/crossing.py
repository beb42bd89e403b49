"""Where a path of points first meets a level, and what a second quantity is there: interpolated, never extrapolated."""

import numpy as np

from analysis.stats.sign_patterns import Floats


def value_at(level: Floats, x: Floats, y: Floats) -> Floats:
    """``y`` where ``x`` first equals ``level`` on the path of straight lines through the points, in their order.

    ``x`` and ``y`` have shape (..., num_points), ``level`` and the result (...). Points with a NaN are left out. NaN where
    the path never meets the level. Where a line lies in the level, its middle.
    """
    absent = np.isnan(x) | np.isnan(y)
    order = np.argsort(absent, axis=-1, kind="stable")
    x, y = (np.take_along_axis(np.where(absent, np.nan, values), order, axis=-1) for values in (x, y))
    found = np.full(level.shape, np.nan)
    num = x.shape[-1]
    for k in range(num - 1):
        start, step = x[..., k], x[..., k + 1] - x[..., k]
        inside = (np.minimum(start, x[..., k + 1]) <= level) & (level <= np.maximum(start, x[..., k + 1]))
        share = np.divide(level - start, step, out=np.full(level.shape, 0.5), where=step != 0)
        there = y[..., k] + share * (y[..., k + 1] - y[..., k])
        found = np.where(np.isnan(found) & inside, there, found)
    for k in range(num):  # a path of one point meets its own level
        found = np.where(np.isnan(found) & (x[..., k] == level), y[..., k], found)
    return np.asarray(found)
