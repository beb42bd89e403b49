"""One number from several datasets.

The unit is the dataset: a t interval over dataset means, each dataset counting once, from five datasets on. The mixed model
(difference ~ 1 with a random dataset, statsmodels) is a sensitivity analysis only: its Wald test finds an effect where none is
in 11 to 21% of cases at two to five datasets, since it takes the spread between few datasets for known.
Source: https://doi.org/10.1002/sim.791 (Higgins et al. 2001, heterogeneity)
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.stats.power import smallest_detectable_t
from analysis.stats.spread import mean_interval

MIN_DATASETS = 5
ALL_DATASETS = "all datasets"
# Less spread than this share of the mean is rounding: dataset means that are equal leave no doubt of their sign.
_ROUNDING = 1e-12
WALD_WARNING = "sensitivity only: its Wald test gives 11 to 21% false positives at two to five datasets"


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Mean and spread of dataset means, and the two-sided p of a mean of zero; ``None`` where one dataset gives none."""

    mean: float
    sd: float | None
    num_datasets: int
    p: float | None

    def interval(self, level: float) -> tuple[float, float]:
        """The t interval at ``level``; infinite for one dataset."""
        if self.sd is None:
            return -math.inf, math.inf
        return mean_interval(self.mean, self.sd, self.num_datasets, level)

    def smallest_detectable(self, level: float, power: float = 0.8) -> float:
        """The smallest mean that the t test at ``level`` finds with probability ``power``, if the spread is as seen."""
        if self.sd is None:
            return math.inf
        return smallest_detectable_t(self.sd / math.sqrt(self.num_datasets), self.num_datasets - 1, level, power)


@dataclass(frozen=True, kw_only=True)
class MixedModel:
    """Wald estimate and 95% limits of the mean, the spread between datasets, and what statsmodels said of its fit."""

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    sd_datasets: float | None = None
    converged: bool = False
    note: str = ""


def pool(means: Sequence[float]) -> Pooled:
    """Over one mean per dataset. Raises ``ValueError`` without any, or for one that is not finite."""
    d = np.asarray(means, dtype=np.float64)
    if not d.size or not np.isfinite(d).all():
        raise ValueError(f"needs finite dataset means, got {d.tolist()}")
    if d.size == 1:
        return Pooled(mean=float(d[0]), sd=None, num_datasets=1, p=None)
    mean, sd = float(d.mean()), float(d.std(ddof=1))
    error = sd / math.sqrt(d.size)
    p = 2 * float(stats.t.sf(abs(mean) / error, d.size - 1)) if error > _ROUNDING * abs(mean) else float(mean == 0)
    return Pooled(mean=mean, sd=sd, num_datasets=int(d.size), p=p)


def mixed_model(differences: ArrayLike, datasets: ArrayLike, alpha: float = 0.05) -> MixedModel:
    """Difference ~ 1 with a random intercept per dataset, by REML; both arguments have one entry per replicate.

    A fit that fails or does not converge is told in ``note``, its numbers being shown only where there are any.
    """
    y, groups = np.asarray(differences, dtype=np.float64), np.asarray(datasets)
    names, group = np.unique(groups, return_inverse=True)
    counts = np.bincount(group, minlength=len(names))
    if len(names) < 2:
        return MixedModel(note="one dataset: no mixed model")
    residual = y - (np.bincount(group, weights=y) / counts)[group]
    scale = float(y.std())
    if scale == 0 or float(np.abs(residual).max()) <= _ROUNDING * float(np.abs(y).max()):
        return MixedModel(note="no spread within datasets: no mixed model")
    # here, because statsmodels is slow to import and few studies pool
    from statsmodels.regression.mixed_linear_model import MixedLM

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:  # in units of the spread, where the optimiser's tolerances are made for
            fit = MixedLM(y / scale, np.ones((len(y), 1)), groups=groups).fit(reml=True)
            estimate, error = scale * float(fit.fe_params[0]), scale * float(fit.bse_fe[0])
            between, converged = scale * math.sqrt(max(float(np.squeeze(fit.cov_re)), 0.0)), bool(fit.converged)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as failure:
            return MixedModel(note=f"mixed model failed: {' '.join(str(failure).split())}")
    notes = [] if converged else ["mixed model did not converge"]
    if any("boundary" in str(warning.message) for warning in caught):
        notes.append("spread between datasets estimated at the boundary of zero")
    if not math.isfinite(error):
        return MixedModel(note="; ".join([*notes, "mixed model has no standard error"]))
    z = float(stats.norm.ppf(1 - alpha / 2))
    return MixedModel(
        estimate=estimate,
        low=estimate - z * error,
        high=estimate + z * error,
        p=2 * float(stats.norm.sf(abs(estimate) / error)),
        sd_datasets=between,
        converged=converged,
        note="; ".join(notes),
    )
