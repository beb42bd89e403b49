"""https://arxiv.org/abs/1903.06586 (Li et al. 2019): selective kernel, a choice between two convolutions of x.

U_1 = relu(BN(conv3x3(x))), U_2 the same with dilation 2 (a 5x5 field), both in min(32, C) groups
a = softmax over the two of W2 relu(BN(W1 mean_hw(U_1 + U_2))), C weights each, W1 to max(C // 16, 32)
Natively a_1 U_1 + a_2 U_2. As a_1 + a_2 = 1 that is (U_1 + U_2) / 2 + u (U_1 - U_2) / 2 with u = 2 a_1 - 1: the gate is a_1,
and what u multiplies is half the difference. The additive control adds u times that difference's running deviation instead;
``static`` learns a fixed mixture. The convolutions are there in every form, so no form starts as if there were no attention.
"""

import math

from torch import Tensor, nn

from study.models.attention.carrier import Carrier, Parts
from study.models.attention.gates import Gate, num_hidden
from study.registry import ATTENTIONS


class TwoKernels(Carrier):
    """base (U_1 + U_2) / 2, moved (U_1 - U_2) / 2."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        groups = math.gcd(channels, 32)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def split(self, x: Tensor) -> Parts:
        """The gate sees the base."""
        near, wide = self.bn1(self.conv1(x)).relu(), self.bn2(self.conv2(x)).relu()
        base = (near + wide) / 2
        return Parts(seen=base, base=base, moved=(near - wide) / 2)


@ATTENTIONS.register(
    "sk",
    formula="a = softmax_1(W2 relu(BN(W1 mean_hw(U_1 + U_2)))) weighs U_1, 1 - a weighs U_2",
    source="https://arxiv.org/abs/1903.06586",
    extra_params="18 * C**2 // gcd(C, 32) + 4 * C + 3 * C * max(C // 16, 32) + 2 * max(C // 16, 32)",
)
class SelectiveKernel(Gate):
    """Channel gate (N, C, 1, 1), the weight of the first kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels, minimum=32)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, 2 * channels, 1, bias=False)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The second convolution."""
        return (self.fc2,)

    def make_carrier(self, channels: int) -> Carrier:
        """Return the two kernels."""
        return TwoKernels(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a_1, (N, C, 1, 1), from ``x`` = (U_1 + U_2) / 2."""
        logits = self.fc2(self.bn(self.fc1(2 * x.mean((2, 3), keepdim=True))).relu())
        gate: Tensor = logits.unflatten(1, (2, -1)).softmax(1)[:, 0]
        return gate

    def native(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Return a_1 U_1 + a_2 U_2."""
        parts = carrier.split(x)
        return parts.base + carrier.weigh(parts, self.centred(parts.seen))
