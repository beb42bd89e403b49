"""Logits of images under Gaussian noise, which the statistics of noise share."""

from collections.abc import Iterator

import torch
from torch import Tensor

from study.smoothness.context import MeasureContext


def noisy_images(context: MeasureContext, split: str, num_samples: int) -> tuple[Tensor, Tensor]:
    """Images (N, ...) and labels (N,) of ``split`` that noise is added to: the same for all statistics, in all cells."""
    return context.sample(split, num_samples, f"noise_stability/{split}")


def noisy_logits(
    context: MeasureContext, x: Tensor, split: str, num_draws: int, sigmas: tuple[float, ...], *, hold: bool = False
) -> Iterator[tuple[float, Tensor]]:
    """Sigma and logits (N, K) of ``x``, the ``noisy_images`` of ``split``: at 0 once, then at each of ``sigmas`` a draw.

    A draw is one standard normal image per image, from the measuring seed alone: the same in all cells, and at all sigmas.
    Sigma / 255 times it is added, without clipping. What another statistic has held is not passed again; with ``hold`` this
    one holds what it passes. Cost per image: 1 + sigmas * draws forward passes; one draw's noise is held for all images.
    Raises ``UserError`` for non-finite outputs.
    """
    for draw in range(num_draws):
        parts: list[tuple[Tensor, Tensor]] = []  # noise is drawn where one of its passes is wanted
        for sigma in sigmas if draw else (0.0, *sigmas):
            key = ("noise", split, len(x), context.chunk, draw, sigma)
            found = context.shared.get(key)
            if found is None:
                parts = parts or context.chunks(x, context.normal(x, f"noise_stability/draw/{draw}"))
                found = (torch.cat([context.logits(images + sigma / 255 * noise) for images, noise in parts]),)
                if hold:
                    context.shared.put(key, found)
            yield sigma, found[0]
