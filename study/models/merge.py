"""https://arxiv.org/abs/2106.15067 (Ye et al. 2021): how a block merges its shortcut x and its residual branch F.

Every operator is a module called as ``merge(x, f)`` on two tensors of one shape (N, C, H, W), giving that shape. The block
applies its ReLU afterwards. An operator that holds its own batch norms says so (``normalizes_branch``,
``normalizes_shortcut``); the block then leaves its own out, so that nothing is normalised twice. One that drops x says so
too (``uses_shortcut``), so that no projection is counted that nothing trains.
"""

from torch import Tensor, nn

from study.registry import MERGES

FMMNET = "https://arxiv.org/abs/2106.15067"
RESNET = "https://arxiv.org/abs/1512.03385"


class Merge(nn.Module):
    """Base of all merge operators. Initialisation: batch norms at scale 1 and shift 0, unless the operator says else."""

    normalizes_branch = False
    normalizes_shortcut = False
    uses_shortcut = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Merge shortcut ``x`` and branch ``f``, both (N, C, H, W)."""
        raise TypeError(f"{type(self).__name__} defines no merge")


@MERGES.register("add", formula="x + F", source=RESNET)
@MERGES.register("add_alias", formula="x + F (the A/A control: the same code, its own search)", source=RESNET)
class Add(Merge):
    """x + F, the residual connection of He et al. 2015."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + F."""
        return x + f


@MERGES.register("none", formula="F", source=RESNET)
class NoSkip(Merge):
    """F alone: no skip connection. Known to lose at depth, so it shows that a study can see a difference."""

    uses_shortcut = False

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return F."""
        return f


@MERGES.register("mul", formula="x * F", source=FMMNET)
class Multiply(Merge):
    """x * F, feature map multiplication as FMMNet has it."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * F."""
        return x * f


@MERGES.register("sig_bn", formula="sigmoid(BN(F)) * BN(x)", source=FMMNET)
class SigmoidBatchNorm(Merge):
    """sigmoid(BN(F)) * BN(x): the branch gates the normalised shortcut (4 C parameters: two batch norms)."""

    normalizes_branch = True
    normalizes_shortcut = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bn_f = nn.BatchNorm2d(channels)
        self.bn_x = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return sigmoid(BN(F)) * BN(x)."""
        gated: Tensor = self.bn_f(f).sigmoid() * self.bn_x(x)
        return gated
