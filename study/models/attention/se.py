"""https://arxiv.org/abs/1709.01507 (Hu et al. 2018): squeeze-and-excitation.

a = sigmoid(W2 relu(W1 mean_hw(x) + b1) + b2), one weight a channel, with max(C // 16, 4) hidden units.
"""

from torch import Tensor, nn

from study.models.attention.gates import Gate, num_hidden
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "se",
    formula="a = sigmoid(W2 relu(W1 mean_hw(x) + b1) + b2)",
    source="https://arxiv.org/abs/1709.01507",
    extra_params="2 * C * max(C // 16, 4) + C + max(C // 16, 4)",
)
class SqueezeExcitation(Gate):
    """Channel gate (N, C, 1, 1); 1x1 convolutions on the pooled map, as torchvision has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels)
        self.fc1 = nn.Conv2d(channels, hidden, kernel_size=1)
        self.fc2 = nn.Conv2d(hidden, channels, kernel_size=1)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The second convolution."""
        return (self.fc2,)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, 1, 1)."""
        hidden = self.fc1(x.mean((2, 3), keepdim=True)).relu()
        gate: Tensor = self.fc2(hidden).sigmoid()
        return gate
