"""https://arxiv.org/abs/1807.06521 (Woo et al. 2018), section 3: the spatial gate of CBAM alone.

a = sigmoid(BN(conv7x7([mean_c(x), max_c(x)]))), one weight a position; the convolution has no bias.
"""

import torch
from torch import Tensor, nn

from study.models.attention.gates import Gate
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "spatial",
    formula="a = sigmoid(BN(conv7x7([mean_c(x), max_c(x)])))",
    source="https://arxiv.org/abs/1807.06521",
    extra_params="100",
)
class SpatialGate(Gate):
    """Spatial gate (N, 1, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The batch norm: zero in scale and shift."""
        return (self.bn,)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, 1, H, W)."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        gate: Tensor = self.bn(self.conv(pooled)).sigmoid()
        return gate
