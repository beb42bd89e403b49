"""https://arxiv.org/abs/1810.12348 (Hu et al. 2018): gather-excite with parameters, GE-theta, of extent 4.

a = sigmoid(upsample(BN(dw(relu(BN(dw(x))))))), dw a depthwise 3x3 convolution of stride 2 without bias, upsampling by nearest
neighbours. A finite extent is what tells it from squeeze-and-excitation, which gathers from the whole map.
"""

from torch import Tensor, nn
from torch.nn import functional

from study.models.attention.gates import Gate
from study.registry import ATTENTIONS


@ATTENTIONS.register(
    "ge",
    formula="a = sigmoid(upsample(BN(dw(relu(BN(dw(x)))))))",
    source="https://arxiv.org/abs/1810.12348",
    extra_params="22 * C",
)
class GatherExcite(Gate):
    """Full gate (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The second batch norm: zero in scale and shift."""
        return (self.bn2,)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, H, W)."""
        gathered = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return functional.interpolate(gathered, size=x.shape[2:]).sigmoid()
