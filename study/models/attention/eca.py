"""https://arxiv.org/abs/1910.03151 (Wang et al. 2020): efficient channel attention.

a = sigmoid(conv_k(mean_hw(x))), a convolution of k neighbouring channels without bias: k parameters. k is the odd number
at or above int((log2 C + 1) / 2), and at least 3, as timm has it: with 1 no channel would see another.
"""

import math

from torch import Tensor, nn

from study.models.attention.gates import Gate
from study.registry import ATTENTIONS


def eca_kernel_size(channels: int) -> int:
    """Return k for C ``channels``: gamma = 2 and b = 1 of the paper."""
    size = int((math.log2(channels) + 1) / 2)
    return max(size if size % 2 else size + 1, 3)


@ATTENTIONS.register(
    "eca",
    formula="a = sigmoid(conv_k(mean_hw(x))) along channels",
    source="https://arxiv.org/abs/1910.03151",
    extra_params="int((log2(C) + 1) / 2) | 1",
)
class EfficientChannelAttention(Gate):
    """Channel gate (N, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = eca_kernel_size(channels)
        # two-dimensional, with channels as rows, so that the seeded initialisation knows it
        self.conv = nn.Conv2d(1, 1, (size, 1), padding=(size // 2, 0), bias=False)

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The convolution."""
        return (self.conv,)

    def forward(self, x: Tensor) -> Tensor:
        """Return a, (N, C, 1, 1)."""
        squeezed = x.mean((2, 3), keepdim=True).transpose(1, 2)
        gate: Tensor = self.conv(squeezed).sigmoid().transpose(1, 2)
        return gate
