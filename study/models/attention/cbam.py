"""https://arxiv.org/abs/1807.06521 (Woo et al. 2018): convolutional block attention, a channel and then a spatial gate.

a_c = sigmoid(mlp(mean_hw(x)) + mlp(max_hw(x)))      mlp = W2 relu(W1 . + b1) + b2, shared
a_s = the spatial gate of x * a_c, as published
a = a_c * a_s, broadcast to (N, C, H, W). So u = 4a - 1 = (1 + u_c)(1 + u_s) - 1: ``mul`` applies two gates in turn.
"""

from torch import Tensor, nn

from study.models.attention.gates import Gate, num_hidden
from study.models.attention.spatial import SpatialGate
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "cbam",
    formula="a = a_c * a_s, a_c = sigmoid(mlp(mean_hw(x)) + mlp(max_hw(x))), a_s = spatial(x * a_c)",
    source="https://arxiv.org/abs/1807.06521",
    extra_params="2 * C * max(C // 16, 4) + C + max(C // 16, 4) + 100",
)
class ConvolutionalBlockAttention(Gate):
    """Full gate (N, C, H, W)."""

    neutral = 0.25

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.spatial = SpatialGate(channels)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """Those of both gates."""
        return (self.fc2, *self.spatial.last_layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        channel = (self.fc2(self.fc1(mean).relu()) + self.fc2(self.fc1(largest).relu())).sigmoid()
        gate: Tensor = channel * self.spatial(x * channel)
        return gate
