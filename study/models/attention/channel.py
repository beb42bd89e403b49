"""Gates with one weight per channel, (N, C, 1, 1): squeeze-and-excitation and its successors.

Source: https://arxiv.org/abs/1709.01507
"""

import math

import torch
from torch import Tensor, nn

from study.models.attention.gates import Carrier, Gate, Parts, num_hidden
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "se",
    formula="a = sigmoid(W2 relu(W1 mean_hw(x) + b1) + b2)",
    source="https://arxiv.org/abs/1709.01507",
    extra_params="2 * C * max(C // 16, 4) + C + max(C // 16, 4)",
)
class SqueezeExcitation(Gate):
    """Squeeze-and-excitation (Hu et al. 2018): 1x1 convolutions on the pooled map, as in torchvision."""

    last = ("fc2",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels)
        self.fc1 = nn.Conv2d(channels, hidden, kernel_size=1)
        self.fc2 = nn.Conv2d(hidden, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, 1, 1)."""
        hidden = self.fc1(x.mean((2, 3), keepdim=True)).relu()
        gate: Tensor = self.fc2(hidden).sigmoid()
        return gate


def eca_kernel_size(channels: int) -> int:
    """Return k for C ``channels``: the odd number at or above int((log2 C + 1) / 2), gamma = 2 and b = 1 of the paper.

    At least 3, as in timm: with 1 no channel would see another.
    """
    size = int((math.log2(channels) + 1) / 2)
    return max(size if size % 2 else size + 1, 3)


@ATTENTIONS.register(
    "eca",
    formula="a = sigmoid(conv_k(mean_hw(x))) along channels",
    source="https://arxiv.org/abs/1910.03151",
    extra_params="max(int((log2(C) + 1) / 2) | 1, 3)",
)
class EfficientChannelAttention(Gate):
    """Efficient channel attention (Wang et al. 2020): a convolution of k neighbouring channels, without bias."""

    last = ("conv",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = eca_kernel_size(channels)
        # two-dimensional, with channels as rows, so that the seeded initialisation knows it
        self.conv = nn.Conv2d(1, 1, (size, 1), padding=(size // 2, 0), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, 1, 1)."""
        squeezed = x.mean((2, 3), keepdim=True).transpose(1, 2)
        gate: Tensor = self.conv(squeezed).sigmoid().transpose(1, 2)
        return gate


@ATTENTIONS.register(
    "gc",
    formula="a = sigmoid(W2 relu(LN(W1 c + b1)) + b2), c = sum_hw(softmax(w . x) x)",
    source="https://arxiv.org/abs/1904.11492",
    extra_params="2 * C * max(C // 16, 4) + 2 * C + 3 * max(C // 16, 4)",
)
class GlobalContext(Gate):
    """Global context (Cao et al. 2019), t = W2 relu(LN(W1 c + b1)) + b2. w has no bias: the softmax would take it away.

    Natively x + t, with W2 and b2 zero at the start. The other forms use the paper's multiplicative fusion, a = sigmoid(t).
    """

    last = ("fc2",)
    zero_when_published = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels)
        self.conv = nn.Conv2d(channels, 1, 1, bias=False)
        self.fc1 = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def transform(self, x: Tensor) -> Tensor:
        """Return t, (N, C, 1, 1)."""
        weights = self.conv(x).flatten(2).softmax(2)
        context = (x.flatten(2) * weights).sum(2)
        t: Tensor = self.fc2(self.norm(self.fc1(context)).relu())
        return t[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, 1, 1)."""
        return self.transform(x).sigmoid()

    def native(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Return x + t."""
        return x + self.transform(x)


@ATTENTIONS.register(
    "srm",
    formula="a = sigmoid(BN(w_c1 mean_hw(x) + w_c2 sd_hw(x)))",
    source="https://arxiv.org/abs/1903.10829",
    extra_params="4 * C",
)
class StyleRecalibration(Gate):
    """Style-based recalibration (Lee et al. 2019): two weights per channel, no bias.

    sd over HW as in the paper's equation 2 (the authors' code divides by HW - 1, which a map of one position does not have),
    plus 1e-5 in the variance. w is drawn, not zero as in the authors' code: with the twins' norm at zero nothing would learn.
    """

    last = ("bn",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 2), groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, 1, 1)."""
        mean = x.mean((2, 3), keepdim=True)
        deviation = (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        gate: Tensor = self.bn(self.conv(torch.cat([mean, deviation], dim=3))).sigmoid()
        return gate


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
    """Selective kernel (Li et al. 2019), a choice between two convolutions of x; a is the weight of the first.

    U_1 = relu(BN(conv3x3(x))), U_2 the same with dilation 2 (a 5x5 field), both in min(32, C) groups
    a = softmax over the two of W2 relu(BN(W1 mean_hw(U_1 + U_2))), C weights each, W1 to max(C // 16, 32)
    Natively a_1 U_1 + a_2 U_2. As a_1 + a_2 = 1 that is (U_1 + U_2) / 2 + u (U_1 - U_2) / 2 with u = 2 a_1 - 1: the gate is
    a_1, and u multiplies half the difference. The additive control adds u times that difference's running deviation instead;
    ``static`` learns a fixed mixture. All forms hold the convolutions, so none starts as if there were no attention.
    """

    last = ("fc2",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels, minimum=32)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, 2 * channels, 1, bias=False)

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
