"""The scales that smoothness is measured on, and temperature scaling.

Smoothness of probabilities depends on the logit norm, so claims are read on more than one scale. All functions take logits
(..., K) of any float dtype and give float64: differences of saturated probabilities need it.

Source: https://arxiv.org/abs/1706.04599
"""

import math

import torch
from torch import Tensor

from study.errors import UserError

# each scale in words
SCALE_WORDS = {
    "probabilities": "probabilities",
    "logits": "logits",
    "unit_logits": "logits centred and of unit length",
    "tempered": "temperature-scaled probabilities",
}
TEMPERATURE_BOUNDS = (0.05, 100.0)
_BISECTIONS = 60  # log(2000) / 2**60 is below float64 rounding


def probabilities(logits: Tensor) -> Tensor:
    """Softmax p over the last dimension."""
    return logits.double().softmax(-1)


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Softmax of ``logits / temperature`` over the last dimension."""
    return (logits.double() / temperature).softmax(-1)


def classes_for_scale(estimate: str) -> int:
    """How many classes an estimate needs by its scale: three on unit logits, which two classes leave only two values."""
    return 3 if "unit_logits" in estimate else 2


def unit_logits(logits: Tensor) -> Tensor:
    """Centred logits of unit length, (z - mean z) / norm(z - mean z); zero if all logits are equal.

    Of two classes they are (1, -1) / sqrt 2 or its negative.
    """
    z = logits.double()
    z = z - z.mean(-1, keepdim=True)
    norm = z.norm(dim=-1, keepdim=True)
    return torch.where(norm > 0, z / norm.where(norm > 0, 1.0), 0.0)


def fit_temperature(logits: Tensor, labels: Tensor) -> tuple[float, bool]:
    """Temperature T that minimises the mean cross-entropy of ``logits`` (N, K) / T, and whether the fit converged.

    The loss is convex in b = 1/T with derivative mean(sum_k p_k z_k - z_label), whose root is found by bisection in log b
    between the ``TEMPERATURE_BOUNDS``. Without a root between them (all labels predicted right, or logits no better than
    chance) the nearer bound is returned with False; for logits not finite, nan with False. ``UserError`` for bad shapes.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(logits):
        raise UserError(
            f"a temperature is fitted to logits (N, K) and labels (N,) with N > 0, "
            f"not {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    z = logits.detach().double()
    if not bool(torch.isfinite(z).all()):
        return math.nan, False
    z = z - z.gather(-1, labels.long().to(z.device)[:, None])  # so that the label's logit is zero

    def slope(log_b: float) -> float:
        return float(((math.exp(log_b) * z).softmax(-1) * z).sum(-1).mean())

    cold, hot = TEMPERATURE_BOUNDS
    low, high = -math.log(hot), -math.log(cold)
    if slope(low) >= 0:
        return hot, False
    if slope(high) <= 0:
        return cold, False
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return math.exp(-(low + high) / 2), True
