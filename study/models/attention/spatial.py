"""Gates with one weight per position, (N, 1, H, W), or per channel and position, (N, C, H, W).

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

    z has max(C // 32, 8) channels at H + W positions; u = 4a - 1 = (1 + u_h)(1 + u_w) - 1. W1 has no bias: the batch norm
    would take it away.
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
