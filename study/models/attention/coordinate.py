"""https://arxiv.org/abs/2103.02907 (Hou et al. 2021): coordinate attention, a gate a row and a gate a column.

z = hswish(BN(W1 [mean_w(x), mean_h(x)])), max(C // 32, 8) channels at H + W positions
a = a_h * a_w, a_h = sigmoid(W_h z_h + b_h), a_w = sigmoid(W_w z_w + b_w); so u = 4a - 1 = (1 + u_h)(1 + u_w) - 1
W1 has no bias: the batch norm would take it away.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.models.attention.gates import Gate, num_hidden
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "coordinate",
    formula="a = sigmoid(W_h z_h + b_h) * sigmoid(W_w z_w + b_w), z = hswish(BN(W1 [mean_w(x), mean_h(x)]))",
    source="https://arxiv.org/abs/2103.02907",
    extra_params="3 * C * max(C // 32, 8) + 2 * max(C // 32, 8) + 2 * C",
)
class CoordinateAttention(Gate):
    """Full gate (N, C, H, W)."""

    neutral = 0.25

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels, reduction=32, minimum=8)
        self.conv = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.conv_h = nn.Conv2d(hidden, channels, 1)
        self.conv_w = nn.Conv2d(hidden, channels, 1)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The convolutions of rows and of columns."""
        return self.conv_h, self.conv_w

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        z = functional.hardswish(self.bn(self.conv(torch.cat([rows, columns], dim=2))))
        z_h, z_w = z[:, :, : x.shape[2]], z[:, :, x.shape[2] :].transpose(2, 3)
        gate: Tensor = self.conv_h(z_h).sigmoid() * self.conv_w(z_w).sigmoid()
        return gate
