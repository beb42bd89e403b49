"""https://arxiv.org/abs/2111.12419 (Liu et al. 2021): normalisation-based attention, channel part.

a = sigmoid(alpha * w_c * BN(x)), w_c = abs(gamma_c) / sum over channels of abs(gamma), gamma the scales of that batch norm.
w is detached, as in the authors' code. alpha is the strength (``strength.py``); natively there is none.
"""

from torch import Tensor, nn

from study.models.attention.strength import StrengthGate
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "nam",
    formula="a = sigmoid(alpha * abs(gamma_c) / sum(abs(gamma)) * BN(x))",
    source="https://arxiv.org/abs/2111.12419",
    extra_params="2 * C + 1",
)
class NormalizationAttention(StrengthGate):
    """Full gate (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        scale = self.bn.weight.detach().abs()
        weight = (scale / scale.sum()).view(1, -1, 1, 1)
        gate: Tensor = self.strength(weight * self.bn(x)).sigmoid()
        return gate
