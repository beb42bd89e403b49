"""https://doi.org/10.1063/5.0141666 (Ye, He, Wang and Li 2023): how far noise on the input moves the prediction."""

import math
from dataclasses import dataclass

import torch

from study.errors import UserError
from study.registry import STATISTICS
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.scales import probabilities, tempered

_SUFFIXES = ("l1", "l1_tempered", "flip_rate")


@dataclass(frozen=True, kw_only=True)
class NoiseStabilitySettings:
    """``num_draws`` noise images for each of ``num_samples`` images of ``split``; ``sigmas`` in units of 1/255."""

    num_samples: int = 1024
    split: str = "test"
    sigmas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    num_draws: int = 4

    def __post_init__(self) -> None:
        if len({_label(sigma) for sigma in self.sigmas}) < len(self.sigmas):
            raise UserError(f"statistic 'noise_stability': setting 'sigmas' holds a value twice: {list(self.sigmas)}")


def _label(sigma: float) -> str:
    return f"noise_{sigma:g}"


def _names(settings: NoiseStabilitySettings) -> list[str]:
    return [f"{_label(sigma)}_{suffix}" for sigma in settings.sigmas for suffix in _SUFFIXES]


@STATISTICS.register(
    "noise_stability",
    formula="E ||p(x + e) - p(x)||_1 and P(argmax changes), e ~ N(0, sigma^2) a pixel, unclipped",
    source="https://doi.org/10.1063/5.0141666",
    settings=NoiseStabilitySettings,
    names=_names,
)
def noise_stability(settings: NoiseStabilitySettings, context: MeasureContext) -> dict[str, Estimate]:
    """L1 distance (0 to 2) of noisy and clean predictions, the same temperature-scaled, and the label-flip rate.

    Units: probability, and share of images. Gaussian noise of ``sigma / 255`` is added to images in [0, 1] and not
    clipped. A draw is one standard normal image a sample, from the measuring seed alone: the same in every cell, scaled
    for each sigma. Draws are averaged within an image, standard errors are over images. Cost a sample: 1 + sigmas * draws
    forwards; the noise of one draw is held for all samples at once. Raises ``UserError`` for non-finite outputs.
    """
    x, _ = context.sample(settings.split, settings.num_samples, f"noise_stability/{settings.split}")
    clean = context.logits(x)
    totals = {name: clean.new_zeros(len(x), dtype=torch.float64) for name in _names(settings)}
    for draw in range(settings.num_draws):
        generator = context.generator(f"noise_stability/draw/{draw}")
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
        for sigma in settings.sigmas:
            noisy = torch.cat(
                [
                    context.logits(part + sigma / 255 * part_noise)
                    for part, part_noise in zip(
                        torch.split(x, context.chunk), torch.split(noise, context.chunk), strict=True
                    )
                ]
            )
            temperature = context.temperature
            totals[f"{_label(sigma)}_l1"] += (probabilities(noisy) - probabilities(clean)).abs().sum(-1)
            totals[f"{_label(sigma)}_l1_tempered"] += (
                (tempered(noisy, temperature) - tempered(clean, temperature)).abs().sum(-1)
            )
            totals[f"{_label(sigma)}_flip_rate"] += (noisy.argmax(-1) != clean.argmax(-1)).double()
    calibrated = context.temperature_converged and math.isfinite(context.temperature)
    return {
        name: estimate.mean(total / settings.num_draws).provided(calibrated or not name.endswith("_tempered"))
        for name, total in totals.items()
    }
