"""Merges with a gate that a 1x1 convolution computes from the shortcut.

Source: https://arxiv.org/abs/1505.00387
"""

from torch import Tensor, nn

from study.models.merges.base import FMMNET, Merge
from study.registry import MERGES

CARRY_BIAS = -2.0


@MERGES.register(
    "highway",
    formula="T * F + (1 - T) * x, T = sigmoid(W x + b)",
    source="https://arxiv.org/abs/1505.00387",
    extra_params="C**2 + C",
)
class Highway(Merge):
    """T * F + (1 - T) * x (Srivastava et al. 2015): one transform gate per channel and position (C^2 + C parameters).

    Initialisation: W normal with variance 2 / C, as all convolutions; b at -2, so that x is carried at first (T = 0.12
    where W x = 0), within the -1 to -3 of the paper.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gate = nn.Conv2d(channels, channels, 1)

    def start(self) -> None:
        """Called after the seeded initialisation: the bias that carries x at first."""
        if self.gate.bias is not None:
            nn.init.constant_(self.gate.bias, CARRY_BIAS)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return T * F + (1 - T) * x."""
        t: Tensor = self.gate(x).sigmoid()
        return t * f + (1 - t) * x


@MERGES.register("adapt_gate", formula="F * sigmoid(W x + b)", source=FMMNET, extra_params="C**2 + C")
class AdaptGate(Merge):
    """F * sigmoid(W x + b): the shortcut gates the branch (C^2 + C parameters).

    At site ``branch`` it is the in-branch gate, x being the hidden map after its ReLU. The authors' notes call its layer
    *adap* and say no more; a 1x1 convolution is the least that adapts channels. Initialisation: W normal with variance
    2 / C, b uniform within 1 / sqrt(C), as all convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.adapt = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return F * sigmoid(W x + b)."""
        merged: Tensor = f * self.adapt(x).sigmoid()
        return merged
