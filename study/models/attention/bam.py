"""https://arxiv.org/abs/1807.06514 (Park et al. 2018): bottleneck attention, a channel and a spatial path side by side.

a = sigmoid(M_c + M_s), natively applied as x * (1 + a)
M_c = W2 relu(BN(W1 mean_hw(x))) + b2
M_s = conv1x1(g(g(relu(BN(conv1x1(x)))))), g = relu(BN(conv3x3 of dilation 4)), all at the bottleneck's width

The sum is the paper's equation 2; the authors' code multiplies M_c and M_s, where both being zero would stop learning. The
layers are those of the code, without the biases that a batch norm takes away.
"""

from torch import Tensor, nn

from study.models.attention.carrier import Carrier
from study.models.attention.gates import Gate, num_hidden
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "bam",
    formula="a = sigmoid(M_c(x) + M_s(x))",
    source="https://arxiv.org/abs/1807.06514",
    extra_params="3 * C * max(C // 16, 4) + C + 9 * max(C // 16, 4) + 18 * max(C // 16, 4)**2 + 1",
)
class BottleneckAttention(Gate):
    """Full gate (N, C, H, W)."""

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

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The last convolution of both paths."""
        return self.channel_last, self.spatial_last

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        channel = self.channel_last(self.channel(x.mean((2, 3), keepdim=True)))
        gate: Tensor = (channel + self.spatial_last(self.spatial(x))).sigmoid()
        return gate

    def native(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Return x * (1 + a)."""
        attended: Tensor = x * (1 + self(x))
        return attended
