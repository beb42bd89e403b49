"""https://arxiv.org/abs/2106.15067 (Ye et al. 2021): merges of the authors' own runs that normalise one path, or neither.

add_bn_f = x + BN(F)      sig1_bn = (s(F) + 1) * BN(x)      sig_sig_raw = s(x) * s(F)      sig_sig_bn_f = s(x) * s(BN F)
adapt_gate = F * s(W x + b), W a 1x1 convolution      s the logistic function

A path without BN comes raw: the block leaves its own batch norm out (and that of a projection). ``add_bn_f`` alone takes the
shortcut as the block has it; in a block that normalises its branch it is ``add``. Initialisation: norms at scale 1 and shift
0. ``adapt_gate`` at site ``branch`` is the in-branch gate, x being the hidden map after its ReLU. The authors' notes call its
layer *adap* and say no more; a 1x1 convolution is the least that adapts channels. What the authors saw is in
``search_spaces/caltech101_authors.yaml``.
"""

from torch import Tensor, nn

from study.models.merges.base import FMMNET, RESNET, Merge
from study.registry import MERGES


@MERGES.register("add_bn_f", formula="x + BN(F)", source=RESNET, extra_params="2 * C")
class AddBranchNorm(Merge):
    """x + BN(F): the authors' baseline, for blocks that leave their branch without a norm (2 C parameters)."""

    normalizes_branch = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bn_f = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + BN(F)."""
        merged: Tensor = x + self.bn_f(f)
        return merged


@MERGES.register("sig1_bn", formula="(sigmoid(F) + 1) * BN(x)", source=FMMNET, extra_params="2 * C")
class RaisedSigmoidBatchNorm(Merge):
    """(sigmoid(F) + 1) * BN(x): the branch, not normalised, gates the normalised shortcut within (1, 2)."""

    normalizes_branch = True
    normalizes_shortcut = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bn_x = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return (sigmoid(F) + 1) * BN(x)."""
        merged: Tensor = (f.sigmoid() + 1) * self.bn_x(x)
        return merged


@MERGES.register("sig_sig_raw", formula="sigmoid(x) * sigmoid(F)", source=FMMNET, extra_params="0")
class SigmoidSigmoidRaw(Merge):
    """sigmoid(x) * sigmoid(F), neither path normalised: the output within (0, 1)."""

    normalizes_branch = True
    normalizes_shortcut = True

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return sigmoid(x) * sigmoid(F)."""
        return x.sigmoid() * f.sigmoid()


@MERGES.register("sig_sig_bn_f", formula="sigmoid(x) * sigmoid(BN(F))", source=FMMNET, extra_params="2 * C")
class SigmoidSigmoidBranchNorm(Merge):
    """sigmoid(x) * sigmoid(BN(F)): the shortcut not normalised, the output within (0, 1)."""

    normalizes_branch = True
    normalizes_shortcut = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bn_f = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return sigmoid(x) * sigmoid(BN(F))."""
        merged: Tensor = x.sigmoid() * self.bn_f(f).sigmoid()
        return merged


@MERGES.register("adapt_gate", formula="F * sigmoid(W x + b)", source=FMMNET, extra_params="C**2 + C")
class AdaptGate(Merge):
    """F * sigmoid(W x + b): the shortcut, through a 1x1 convolution, gates the branch (C^2 + C parameters).

    Initialisation: W normal with variance 2 / C, b uniform within 1 / sqrt(C), as all convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.adapt = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return F * sigmoid(W x + b)."""
        merged: Tensor = f * self.adapt(x).sigmoid()
        return merged
