"""The star operation (Ma et al. 2024, *Rewrite the Stars*) and its additive twin. G is a batch norm after a 1x1 convolution.

The paper's h is here the block's branch F, so the outer skip stays additive, as in StarNet. W1 and W2 are 1x1 convolutions
with bias from C to C (StarNet widens three- to fourfold); G's has none, since a batch norm follows it: 3 C^2 + 4 C parameters.

Source: https://arxiv.org/abs/2403.19967
"""

from torch import Tensor, nn
from torch.nn import functional

from study.models.merges.base import Merge
from study.registry import MERGES

STARNET = "https://arxiv.org/abs/2403.19967"
_PARAMS = "3 * C**2 + 4 * C"


@MERGES.register("star", formula="x + G(relu6(W1 F) * W2 F)", source=STARNET, extra_params=_PARAMS)
class Star(Merge):
    """x + G(relu6(W1 F) * W2 F): the product is of two maps of the branch, none of it with x.

    Initialisation: convolutions normal with variance 2 / C, biases uniform within 1 / sqrt(C), G's norm at scale 1, shift 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.w1 = nn.Conv2d(channels, channels, 1)
        self.w2 = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + G(join(relu6(W1 F), W2 F))."""
        joined: Tensor = self.bn(self.project(self._join(functional.relu6(self.w1(f)), self.w2(f))))
        return x + joined

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


@MERGES.register("star_sum", formula="x + G(relu6(W1 F) + W2 F)", source=STARNET, extra_params=_PARAMS)
class StarSum(Star):
    """x + G(relu6(W1 F) + W2 F): ``star`` with its product replaced by a sum, the ablation of StarNet's paper."""

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b
