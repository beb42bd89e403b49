"""Gates with one weight per position, (N, 1, H, W), or per channel and position, (N, C, H, W).

SimAM and NAM, the last two, have no last layer to zero, and a learned strength in its place.

Source: https://arxiv.org/abs/1807.06521
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.models.attention.gates import Carrier, Gate, num_hidden
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "spatial",
    formula="a = sigmoid(BN(conv7x7([mean_c(x), max_c(x)])))",
    source="https://arxiv.org/abs/1807.06521",
    extra_params="100",
)
class SpatialGate(Gate):
    """The spatial gate of CBAM alone (Woo et al. 2018, section 3), (N, 1, H, W). The convolution has no bias."""

    last = ("bn",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, 1, H, W)."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        gate: Tensor = self.bn(self.conv(pooled)).sigmoid()
        return gate


@ATTENTIONS.register(
    "cbam",
    formula="a = a_c * a_s, a_c = sigmoid(mlp(mean_hw(x)) + mlp(max_hw(x))), a_s = spatial(x * a_c)",
    source="https://arxiv.org/abs/1807.06521",
    extra_params="2 * C * max(C // 16, 4) + C + max(C // 16, 4) + 100",
)
class ConvolutionalBlockAttention(Gate):
    """CBAM (Woo et al. 2018), a channel and then a spatial gate, mlp = W2 relu(W1 . + b1) + b2 shared by both poolings.

    u = 4a - 1 = (1 + u_c)(1 + u_s) - 1: form ``mul`` applies two gates in turn.
    """

    last = ("fc2", "spatial.bn")
    neutral = 0.25

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.spatial = SpatialGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        channel = (self.fc2(self.fc1(mean).relu()) + self.fc2(self.fc1(largest).relu())).sigmoid()
        gate: Tensor = channel * self.spatial(x * channel)
        return gate


@ATTENTIONS.register(
    "bam",
    formula="a = sigmoid(M_c(x) + M_s(x))",
    source="https://arxiv.org/abs/1807.06514",
    extra_params="3 * C * max(C // 16, 4) + C + 9 * max(C // 16, 4) + 18 * max(C // 16, 4)**2 + 1",
)
class BottleneckAttention(Gate):
    """Bottleneck attention (Park et al. 2018), a channel and a spatial path side by side; natively x * (1 + a).

    M_c = W2 relu(BN(W1 mean_hw(x))) + b2
    M_s = conv1x1(g(g(relu(BN(conv1x1(x)))))), g = relu(BN(conv3x3 of dilation 4)), all at the bottleneck's width

    The sum is the paper's equation 2; the authors' code multiplies M_c and M_s, where both being zero would stop learning. The
    layers are those of the code, without the biases that a batch norm takes away.
    """

    last = ("channel_last", "spatial_last")

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels)
        self.channel = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
        self.channel_last = nn.Conv2d(hidden, channels, 1)
        self.spatial = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
        for _ in range(2):
            self.spatial.append(nn.Conv2d(hidden, hidden, 3, padding=4, dilation=4, bias=False))
            self.spatial.extend((nn.BatchNorm2d(hidden), nn.ReLU()))
        self.spatial_last = nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        channel = self.channel_last(self.channel(x.mean((2, 3), keepdim=True)))
        gate: Tensor = (channel + self.spatial_last(self.spatial(x))).sigmoid()
        return gate

    def native(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Return x * (1 + a)."""
        attended: Tensor = x * (1 + self(x))
        return attended


@ATTENTIONS.register(
    "coordinate",
    formula="a = sigmoid(W_h z_h + b_h) * sigmoid(W_w z_w + b_w), z = hswish(BN(W1 [mean_w(x), mean_h(x)]))",
    source="https://arxiv.org/abs/2103.02907",
    extra_params="3 * C * max(C // 32, 8) + 2 * max(C // 32, 8) + 2 * C",
)
class CoordinateAttention(Gate):
    """Coordinate attention (Hou et al. 2021): a = a_h * a_w, a gate per row times a gate per column.

    z has max(C // 32, 8) channels at H + W positions; u = 4a - 1 = (1 + u_h)(1 + u_w) - 1. A norm follows W1: it has no bias.
    """

    last = ("conv_h", "conv_w")
    neutral = 0.25

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels, reduction=32, minimum=8)
        self.conv = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.conv_h = nn.Conv2d(hidden, channels, 1)
        self.conv_w = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        z = functional.hardswish(self.bn(self.conv(torch.cat([rows, columns], dim=2))))
        z_h, z_w = z[:, :, : x.shape[2]], z[:, :, x.shape[2] :].transpose(2, 3)
        gate: Tensor = self.conv_h(z_h).sigmoid() * self.conv_w(z_w).sigmoid()
        return gate


@ATTENTIONS.register(
    "ge",
    formula="a = sigmoid(upsample(BN(dw(relu(BN(dw(x)))))))",
    source="https://arxiv.org/abs/1810.12348",
    extra_params="22 * C",
)
class GatherExcite(Gate):
    """Gather-excite with parameters, GE-theta, of extent 4 (Hu et al. 2018), (N, C, H, W).

    dw is a depthwise 3x3 convolution of stride 2 without bias, upsampling by nearest neighbours. Squeeze-and-excitation
    gathers from the whole map, this one from a finite extent.
    """

    last = ("bn2",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        gathered = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return functional.interpolate(gathered, size=x.shape[2:]).sigmoid()


class Strength(nn.Module):
    """alpha * logit, one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, logit: Tensor) -> Tensor:
        """Return alpha * ``logit``."""
        return self.alpha * logit


class StrengthGate(Gate):
    """Base of the gates whose logit l(x) has no layer of its own: a = sigmoid(alpha * l(x)), (N, C, H, W).

    alpha is one scalar: 0 at the start of the twins, so that u = 0 there, and 1 where the gate starts as published.
    ``native`` has none: it is the published gate, sigmoid(l(x)), unchanged.
    """

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

    mu is the mean over a channel's HW positions, v the sum of (x - mu)^2 over HW - 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        square = (x - x.mean((2, 3), keepdim=True)) ** 2
        # a map of one position has no variance: 0 over 1
        variance = square.sum((2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        gate: Tensor = self.strength(square / (4 * (variance + 1e-4)) + 0.5).sigmoid()
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
