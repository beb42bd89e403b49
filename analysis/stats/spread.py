"""One number per replicate (or block): its mean, spread and interval, as the columns of a table."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.stats.signflip import sign_flip_interval, sign_flip_p

NAMES = ("mean", "sd", "ci_low", "ci_high")
_LEAST_FOR_SKEWNESS = 8
_ROUNDING = 1e-9


def mean(values: ArrayLike) -> float | None:
    """The mean of ``values`` (n,); ``None`` of none."""
    v = np.asarray(values, dtype=np.float64)
    return float(v.mean()) if len(v) else None


def sd(values: ArrayLike) -> float | None:
    """The standard deviation (n - 1) of ``values`` (n,); ``None`` below two."""
    v = np.asarray(values, dtype=np.float64)
    return float(v.std(ddof=1)) if len(v) > 1 else None


def spread(values: ArrayLike, alpha: float, *, prefix: str = "") -> dict[str, float | None]:
    """Mean, standard deviation and sign-flip interval at 1 - ``alpha`` of finite ``values`` (n,); null where there is none."""
    v = np.asarray(values, dtype=np.float64)
    limits = sign_flip_interval(v, alpha) if len(v) else (None, None)
    return {f"{prefix}{name}": x for name, x in zip(NAMES, (mean(v), sd(v), *limits), strict=True)}


def mean_interval(centre: float, spread: float, num: int, level: float) -> tuple[float, float]:
    """The t interval at 1 - ``level`` of the mean of ``num`` values with this mean and standard deviation."""
    half = float(stats.t.ppf(1 - level / 2, num - 1)) * spread / math.sqrt(num)
    return centre - half, centre + half


def one_run(values: ArrayLike, level: float) -> tuple[float | None, float | None, float | None]:
    """What luck does to one more run like ``values`` (n,), at 1 - ``level``, for normal values; ``None`` below two.

    Limits of the one run, and the difference between two such runs.
    Source: https://doi.org/10.1002/9780470316771 (prediction intervals, Hahn and Meeker 1991)
    """
    v = np.asarray(values, dtype=np.float64)
    if len(v) < 2:
        return None, None, None
    half = float(stats.t.ppf(1 - level / 2, len(v) - 1)) * float(v.std(ddof=1))
    alone = half * math.sqrt(1 + 1 / len(v))
    return float(v.mean()) - alone, float(v.mean()) + alone, half * math.sqrt(2)


def p_value(values: ArrayLike) -> float | None:
    """Two-sided sign-flip p of "symmetric about zero"; ``None`` without values."""
    v = np.asarray(values, dtype=np.float64)
    return sign_flip_p(v) if len(v) else None


def symmetry(values: ArrayLike) -> tuple[float | None, float | None]:
    """Skewness of ``values`` (n,), and D'Agostino's two-sided p of "they are not skewed"; ``None`` below eight values.

    The p is that of normal values: heavy tails alone make it small more often than its level says.
    Source: https://doi.org/10.1093/biomet/57.3.679
    """
    v = np.asarray(values, dtype=np.float64)
    # of values that are all but equal scipy warns, and gives no number
    if len(v) < _LEAST_FOR_SKEWNESS or np.ptp(v) <= _ROUNDING * float(np.max(np.abs(v))):
        return None, None
    return float(stats.skew(v)), float(stats.skewtest(v).pvalue)


def jackknife_ratio(
    parts: ArrayLike, wholes: ArrayLike, alpha: float
) -> tuple[float | None, float | None, float | None]:
    """Sum of ``parts`` over sum of ``wholes``, with its jackknife interval (Tukey 1958).

    One block is left out at a time; pseudo-values have a t interval at 1 - ``alpha``. With equal wholes this is the
    ordinary t interval of the mean. Limits are ``None`` for one block, all three for nothing.
    Source: https://doi.org/10.1214/aoms/1177706647
    """
    part, whole = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    if not whole.sum() > 0:
        return None, None, None
    ratio, n = float(part.sum() / whole.sum()), len(whole)
    if n < 2 or np.any(whole.sum() - whole <= 0):
        return ratio, None, None
    left = (part.sum() - part) / (whole.sum() - whole)
    pseudo = n * ratio - (n - 1) * left
    return ratio, *mean_interval(float(pseudo.mean()), float(pseudo.std(ddof=1)), n, alpha)
