"""Noise accuracy: the share of images that are still classified right under Gaussian noise.

Source: https://doi.org/10.1063/5.0141666
"""

import math
from dataclasses import dataclass

import torch

from study.registry import STATISTICS
from study.schema import FRACTION, Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.noisy import noisy_images, noisy_logits

# A clean accuracy is above guessing if it is so by this many standard errors of a guess.
_ABOVE_GUESSING = 2.0


@dataclass(frozen=True, kw_only=True)
class NoiseAccuracySettings:
    """``num_draws`` noise images for each of ``num_samples`` images of ``split``; ``sigmas`` in units of 1/255."""

    num_samples: int = 1024
    split: str = "test"
    sigmas: tuple[float, ...] = (8.0, 16.0, 32.0, 64.0)
    num_draws: int = 4


def _outcomes(settings: NoiseAccuracySettings) -> list[Quantity]:
    found = [
        Quantity(
            name=f"noise_{sigma:g}_accuracy",
            meaning=f"accuracy under Gaussian noise of deviation {sigma:g}/255 a pixel",
            unit=FRACTION,
            better="higher",
        )
        for sigma in (0.0, *settings.sigmas)
    ]
    area = f"mean of accuracy under noise of deviation 0 to {max(settings.sigmas):g}/255, by the trapezoid rule"
    return [*found, Quantity(name="noise_accuracy_area", meaning=area, unit=FRACTION, better="higher")]


@STATISTICS.register(
    "noise_accuracy",
    formula="P(argmax z(x + e) = y), e ~ N(0, sigma^2) a pixel, unclipped; its mean over sigma from 0 to the largest",
    source="https://doi.org/10.1063/5.0141666",
    settings=NoiseAccuracySettings,
    outcomes=_outcomes,
    serves=("noise_stability",),
)
def noise_accuracy(settings: NoiseAccuracySettings, context: MeasureContext) -> dict[str, Estimate]:
    """Accuracy under noise of each sigma, ``noise_{sigma}_accuracy`` with 0 for none, and the area under it. Higher is better.

    ``noise_accuracy_area`` is the trapezoid rule's integral of accuracy over sigma, from 0 through ``sigmas`` in ascending
    order, over the largest sigma: between 0 and 1, and 1 if no noise does harm. It depends on which sigmas are given.

    Units: share of images. Images, draws and, where settings agree, forward passes are those of ``noise_stability``. The value
    of an image is the mean over its draws, or the area under its own means; standard errors are over images, so the draws of
    one image count as one. (In 4,000 simulated samples of 200 images and 4 draws, value +- 1.96 standard errors held the true
    accuracy in 92.3 % without noise, where it was .90, 93.7 % at .85, 94.9 % at .72, and 94.0 % for the area.)

    Not converged where accuracy without noise is not above guessing, by two standard errors of a guess: too few images, or a
    network with nothing that noise could take. Guessing has the accuracy of the most frequent class. An accuracy that noise
    brings down to guessing is a finding and stays converged: else networks that noise harms most would be left out.

    Cost per sample: 1 + sigmas * draws forward passes, held for ``noise_stability``. Raises ``UserError`` for non-finite
    outputs.
    """
    x, y = noisy_images(context, settings.split, settings.num_samples)
    sigmas = sorted((0.0, *settings.sigmas))
    hits = {sigma: torch.zeros(len(x), dtype=torch.float64, device=x.device) for sigma in sigmas}
    for sigma, logits in noisy_logits(context, x, settings.split, settings.num_draws, settings.sigmas, hold=True):
        hits[sigma] += (logits.argmax(-1) == y).double() / (settings.num_draws if sigma else 1)
    values = {f"noise_{sigma:g}_accuracy": hits[sigma] for sigma in (0.0, *settings.sigmas)}
    curve = torch.stack([hits[sigma] for sigma in sigmas])
    at = torch.tensor(sigmas, dtype=torch.float64, device=x.device)
    values["noise_accuracy_area"] = torch.trapezoid(curve, at, dim=0) / sigmas[-1]
    guess = float(torch.bincount(y.long()).max()) / len(y)
    least = guess + _ABOVE_GUESSING * math.sqrt(guess * (1 - guess) / len(y))
    above = float(hits[0.0].mean()) > least
    return {name: estimate.mean(each).provided(above) for name, each in values.items()}
