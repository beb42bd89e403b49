"""Noise stability: how far noise on the input moves the prediction.

Source: https://doi.org/10.1063/5.0141666
"""

from dataclasses import dataclass

import torch

from study.registry import STATISTICS
from study.schema import FRACTION, Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.noisy import noisy_images, noisy_logits
from study.smoothness.scales import probabilities, tempered

_SUFFIXES = {
    "l1": ("L1 distance, 0 to 2, of the predicted probabilities from those without noise", "probability"),
    "l1_tempered": ("L1 distance, 0 to 2, of temperature-scaled probabilities from those without noise", "probability"),
    "flip_rate": ("share of images whose predicted class changes", FRACTION),
}


@dataclass(frozen=True, kw_only=True)
class NoiseStabilitySettings:
    """``num_draws`` noise images for each of ``num_samples`` images of ``split``; ``sigmas`` in units of 1/255."""

    num_samples: int = 1024
    split: str = "test"
    sigmas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    num_draws: int = 4


def _outcomes(settings: NoiseStabilitySettings) -> list[Quantity]:
    return [
        Quantity(
            name=f"noise_{sigma:g}_{suffix}",
            meaning=f"{meaning}, under Gaussian noise of deviation {sigma:g}/255 a pixel",
            unit=unit,
            better="lower",
        )
        for sigma in settings.sigmas
        for suffix, (meaning, unit) in _SUFFIXES.items()
    ]


@STATISTICS.register(
    "noise_stability",
    formula="E ||p(x + e) - p(x)||_1 and P(argmax changes), e ~ N(0, sigma^2) a pixel, unclipped",
    source="https://doi.org/10.1063/5.0141666",
    settings=NoiseStabilitySettings,
    outcomes=_outcomes,
)
def noise_stability(settings: NoiseStabilitySettings, context: MeasureContext) -> dict[str, Estimate]:
    """L1 distance (0 to 2) of noisy and clean predictions, the same temperature-scaled, and the label-flip rate.

    Units: probability, and share of images. Gaussian noise of ``sigma / 255`` is added to images in [0, 1], without clipping.
    A draw is one standard normal image per sample, from the measuring seed alone: the same in all cells, scaled for each
    sigma. Draws are averaged within an image; standard errors over images. Cost per sample: 1 + sigmas * draws forward
    passes; one draw's noise is held for all samples. Raises ``UserError`` for non-finite outputs.

    Coverage of .95 intervals over samples of images: .92 to .96, and .90 of the flip rate at sigma = 4, which few images have
    (n = 200 samples of 360 images). The error of a rate of 0 is 0; up to 3 in ``num_samples`` would go unseen.
    """
    x, _ = noisy_images(context, settings.split, settings.num_samples)
    passes = noisy_logits(context, x, settings.split, settings.num_draws, settings.sigmas)
    (_, clean), temperature = next(passes), context.temperature
    totals = {each.name: clean.new_zeros(len(x), dtype=torch.float64) for each in _outcomes(settings)}
    for sigma, noisy in passes:
        label = f"noise_{sigma:g}"
        totals[f"{label}_l1"] += (probabilities(noisy) - probabilities(clean)).abs().sum(-1)
        scaled = tempered(noisy, temperature) - tempered(clean, temperature)
        totals[f"{label}_l1_tempered"] += scaled.abs().sum(-1)
        totals[f"{label}_flip_rate"] += (noisy.argmax(-1) != clean.argmax(-1)).double()
    known = context.temperature_known
    return {
        name: estimate.mean(total / settings.num_draws).provided(known or not name.endswith("_tempered"))
        for name, total in totals.items()
    }
