"""A measured value with standard error, sample count and convergence flag, and how to compute one from samples.

All helpers take one value per sample (1-D, any float dtype, any device) and compute in float64. Samples are independent; where
``images`` (n, m) names the m images behind each, those without a common image are. Samples that are not finite, fewer than
two, or all with images in common give ``converged=False``; nothing is dropped silently and nothing raises.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from study.errors import UserError
from study.schema import EstimateRecord


@dataclass(frozen=True)
class Estimate:
    """``value`` with its standard error over ``num_samples``; ``converged`` is False if it is not to be trusted.

    ``samples`` (n,) float64 are the single values behind it, ``resamplings`` (B,) its values on resampled images, if any; they
    are not part of its record.
    """

    value: float
    stderr: float
    num_samples: int
    converged: bool
    samples: Tensor | None = field(default=None, compare=False, repr=False)
    resamplings: Tensor | None = field(default=None, compare=False, repr=False)

    def as_record(self) -> EstimateRecord:
        """The estimate as the ledger holds it."""
        return EstimateRecord(
            value=self.value, stderr=self.stderr, num_samples=self.num_samples, converged=self.converged
        )

    def provided(self, condition: bool) -> "Estimate":
        """The same estimate, not converged unless ``condition`` holds too."""
        return self if condition else replace(self, converged=False)


class IncompleteError(UserError):
    """A part of a statistic cannot be computed: the message says which and why, ``estimates`` holds the others."""

    def __init__(self, message: str, estimates: Mapping[str, Estimate]) -> None:
        super().__init__(message)
        self.estimates = dict(estimates)


def mean(values: Tensor, images: Tensor | None = None) -> Estimate:
    """Mean of ``values`` (n,), standard error sd / sqrt(n) with the n - 1 sample standard deviation.

    With ``images`` the standard error is that of images drawn independently, see ``_shared_error``.
    """
    values = values.detach().double().flatten()
    n = values.numel()
    if n == 0 or not bool(torch.isfinite(values).all()):
        return Estimate(math.nan, math.nan, n, False, values)
    centre = float(values.mean())
    if n == 1:
        return Estimate(centre, math.nan, n, False, values)
    plain = float(values.std(correction=1)) / math.sqrt(n)
    stderr = plain if images is None else _shared_error((values - centre).cpu(), images.cpu(), plain)
    return Estimate(centre, stderr, n, math.isfinite(stderr), values)


def _shared_error(deviations: Tensor, images: Tensor, plain: float) -> float:
    """Standard error of a mean over n tuples of m different ``images`` (n, m), from their ``deviations`` (n,) from it.

    The images are a sample, so tuples without a common image are independent and others are not. The variance is the sum of
    e_d e_d' over ordered pairs of tuples with a common image (d with itself too), as by Aronow, Samii and Assenova
    (https://doi.org/10.1093/pan/mpv018), over the number of pairs without one in place of n^2. As deviations sum to zero, that
    is minus their mean product over the pairs without one: unbiased if each image is in equally many tuples, and ``plain``
    squared if none is in two. It is never below that, since what tuples share of an image cannot make their mean more certain.
    nan if all share images.
    """
    both = torch.stack([deviations, torch.ones_like(deviations)], 1)
    shared = torch.zeros(2, dtype=torch.float64)
    ordered = images.sort(1).values
    for size in range(1, ordered.shape[1] + 1):  # inclusion and exclusion: two tuples may share several images
        subsets = [ordered[:, list(columns)] for columns in itertools.combinations(range(ordered.shape[1]), size)]
        _, place = torch.unique(torch.cat(subsets), dim=0, return_inverse=True)
        sums = torch.zeros(int(place.max()) + 1, 2, dtype=torch.float64).index_add_(
            0, place, both.repeat(len(subsets), 1)
        )
        shared -= (-1) ** size * (sums**2).sum(0)
    products, number = shared.tolist()
    apart = len(deviations) ** 2 - number
    return max(plain, math.sqrt(max(0.0, products / apart))) if apart else math.nan


def mean_log(values: Tensor) -> Estimate:
    """Mean of the natural logs of ``values``; a value of zero leaves it nan, not converged."""
    return mean(values.log())


def log_of_mean(values: Tensor, resolution: float = 0.0, images: Tensor | None = None) -> Estimate:
    """Natural log of the mean of ``values``, by the delta method; not converged if the mean is within ``resolution`` of 0."""
    plain = mean(values, images)
    if not plain.value > 0:  # nan too
        return replace(plain, value=math.nan, stderr=math.nan, converged=False)
    log = replace(plain, value=math.log(plain.value), stderr=plain.stderr / plain.value)
    return log.provided(plain.value > resolution)


def root_mean_square(values: Tensor) -> Estimate:
    """Root of the mean square of ``values``; standard error by the delta method, stderr(mean square) / (2 rms)."""
    values = values.detach().double().flatten()
    square = mean(values**2)
    root = math.sqrt(square.value)
    stderr = square.stderr / (2 * root) if root > 0 else square.stderr  # all zero: the standard error is zero as well
    return replace(square, value=root, stderr=stderr, samples=values)


def ratio_of_means(
    numerator: Tensor, denominator: Tensor, resolution: float = 0.0, images: Tensor | None = None
) -> Estimate:
    """Mean of ``numerator`` over mean of ``denominator``, sample by sample paired; standard error by the delta method.

    stderr = that of mean (numerator - ratio * denominator) / mean denominator; nan where that mean is ``resolution`` or less.
    """
    top, bottom = mean(numerator), mean(denominator)
    if not (math.isfinite(top.value) and bottom.value > resolution):
        return Estimate(math.nan, math.nan, bottom.num_samples, False)
    ratio = top.value / bottom.value
    residual = mean(numerator.detach().double() - ratio * denominator.detach().double(), images)
    return Estimate(ratio, residual.stderr / bottom.value, residual.num_samples, residual.converged)


def quantile(values: Tensor, q: float) -> Estimate:
    """The order statistic of rank ceil(q n) of ``values``, with the standard error of all its bootstrap resamples.

    The rank-m value of a resample is at most the i-th of the sample when m draws or more fall among the first i, so its
    distribution is binomial and nothing is drawn (Maritz and Jarrett 1978, https://doi.org/10.1080/01621459.1978.10480027).
    """
    ordered = values.detach().double().flatten().cpu().sort().values
    n = ordered.numel()
    if n < 2 or not bool(torch.isfinite(ordered).all()):
        return Estimate(math.nan, math.nan, n, False, ordered)
    rank = min(n, max(1, math.ceil(q * n)))
    draws = torch.arange(rank, n + 1, dtype=torch.float64)
    whole = torch.tensor(n + 1.0, dtype=torch.float64)
    choose = whole.lgamma() - (draws + 1).lgamma() - (n - draws + 1).lgamma()
    share = (torch.arange(n + 1, dtype=torch.float64) / n)[:, None]
    log_terms = choose + torch.special.xlogy(draws, share) + torch.special.xlogy(n - draws, 1 - share)
    weights = log_terms.exp().sum(1).diff()
    centre = (weights * ordered).sum()
    stderr = float((weights * (ordered - centre) ** 2).sum().sqrt())
    return Estimate(float(ordered[rank - 1]), stderr, n, True, ordered)
