"""https://arxiv.org/abs/1903.10829 (Lee et al. 2019): style-based recalibration.

a = sigmoid(BN(w_c1 mean_hw(x) + w_c2 sd_hw(x))), two weights a channel, no bias; sd over HW as in the paper's equation 2 (the
authors' code divides by HW - 1, which a map of one position does not have), plus 1e-5 in the variance.
The authors' code starts w at zero. It is drawn here: with the twins' batch norm at zero too nothing would ever learn.
"""

import torch
from torch import Tensor, nn

from study.models.attention.gates import Gate
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "srm",
    formula="a = sigmoid(BN(w_c1 mean_hw(x) + w_c2 sd_hw(x)))",
    source="https://arxiv.org/abs/1903.10829",
    extra_params="4 * C",
)
class StyleRecalibration(Gate):
    """Channel gate (N, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 2), groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The batch norm: zero in scale and shift."""
        return (self.bn,)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, 1, 1)."""
        mean = x.mean((2, 3), keepdim=True)
        deviation = (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        gate: Tensor = self.bn(self.conv(torch.cat([mean, deviation], dim=3))).sigmoid()
        return gate
