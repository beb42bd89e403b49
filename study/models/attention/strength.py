"""Gates without a last layer to zero: SimAM and NAM, (N, C, H, W), with a learned strength in its place.

a = sigmoid(alpha * l(x)), where the published gate is sigmoid(l(x)). alpha is one scalar: 0 at the start of the twins, so
that u = 0 there, and 1 where the gate starts as published. ``native`` has none: it is the published gate, unchanged.

Source: https://arxiv.org/abs/2111.12419
"""

import torch
from torch import Tensor, nn

from study.models.attention.gates import Gate
from study.registry import ATTENTIONS

LAMBDA = 1e-4


class Strength(nn.Module):
    """alpha * logit, one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, logit: Tensor) -> Tensor:
        """Return alpha * ``logit``."""
        return self.alpha * logit


class StrengthGate(Gate):
    """Base of the gates whose logit has no layer of its own."""

    last = ("strength",)

    def __init__(self) -> None:
        super().__init__()
        self.strength: nn.Module = Strength()

    def as_published(self) -> None:
        """Drop the strength."""
        self.strength = nn.Identity()


@ATTENTIONS.register(
    "simam",
    formula="a = sigmoid(alpha * ((x - mu)^2 / (4 (v + 1e-4)) + 1/2))",
    source="https://proceedings.mlr.press/v139/yang21o.html",
    extra_params="1",
)
class SimpleAttention(StrengthGate):
    """SimAM (Yang et al. 2021), an energy without parameters.

    mu is the mean over a channel's HW positions, v the sum of (x - mu)^2 over HW - 1, lambda = 1e-4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        square = (x - x.mean((2, 3), keepdim=True)) ** 2
        # a map of one position has no variance: 0 over 1
        variance = square.sum((2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        gate: Tensor = self.strength(square / (4 * (variance + LAMBDA)) + 0.5).sigmoid()
        return gate


@ATTENTIONS.register(
    "nam",
    formula="a = sigmoid(alpha * abs(gamma_c) / sum(abs(gamma)) * BN(x))",
    source="https://arxiv.org/abs/2111.12419",
    extra_params="2 * C + 1",
)
class NormalizationAttention(StrengthGate):
    """Normalisation-based attention (Liu et al. 2021), channel part; gamma are the scales of its batch norm.

    abs(gamma_c) / sum(abs(gamma)) is detached, as in the authors' code.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        scale = self.bn.weight.detach().abs()
        weight = (scale / scale.sum()).view(1, -1, 1, 1)
        gate: Tensor = self.strength(weight * self.bn(x)).sigmoid()
        return gate
