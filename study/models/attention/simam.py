"""https://proceedings.mlr.press/v139/yang21o.html (Yang et al. 2021): SimAM, an energy without parameters.

a = sigmoid(alpha * l), l = (x - mu)^2 / (4 (v + lambda)) + 1/2, with mu the mean over a channel's HW positions, v the sum of
(x - mu)^2 over HW - 1, lambda = 1e-4. alpha is the strength (``strength.py``); natively there is none.
"""

from torch import Tensor

from study.models.attention.strength import StrengthGate
from study.registry import ATTENTIONS

LAMBDA = 1e-4


@ATTENTIONS.register(
    "simam",
    formula="a = sigmoid(alpha * ((x - mu)^2 / (4 (v + 1e-4)) + 1/2))",
    source="https://proceedings.mlr.press/v139/yang21o.html",
    extra_params="1",
)
class SimpleAttention(StrengthGate):
    """Full gate (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        square = (x - x.mean((2, 3), keepdim=True)) ** 2
        # a map of one position has no variance: 0 over 1
        variance = square.sum((2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        gate: Tensor = self.strength(square / (4 * (variance + LAMBDA)) + 0.5).sigmoid()
        return gate
