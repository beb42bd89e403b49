"""https://arxiv.org/abs/1904.11492 (Cao et al. 2019): global context.

t = W2 relu(LN(W1 c + b1)) + b2, c = sum over positions of softmax(w . x) x
Natively additive, x + t, with W2 and b2 zero at the start. The other forms use the paper's multiplicative fusion,
a = sigmoid(t). w has no bias: the softmax would take it away.
"""

from torch import Tensor, nn

from study.models.attention.carrier import Carrier
from study.models.attention.gates import Gate, num_hidden
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "gc",
    formula="a = sigmoid(W2 relu(LN(W1 c + b1)) + b2), c = sum_hw(softmax(w . x) x)",
    source="https://arxiv.org/abs/1904.11492",
    extra_params="2 * C * max(C // 16, 4) + 2 * C + 3 * max(C // 16, 4)",
)
class GlobalContext(Gate):
    """Channel gate (N, C, 1, 1)."""

    zero_when_published = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = num_hidden(channels)
        self.conv = nn.Conv2d(channels, 1, 1, bias=False)
        self.fc1 = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The second linear layer."""
        return (self.fc2,)

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
