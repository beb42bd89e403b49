"""https://arxiv.org/abs/2106.15067 (Ye et al. 2021): merges of a normalised shortcut and a normalised branch.

add_bn = BN(x) + BN(F)      mul_bn = BN(x) * BN(F)      sig_bn = s(BN F) * BN(x)
bn_sig = (s(BN x) + 1/2) * BN(F)      sig_sig = (s(BN x) + 1/2) * s(BN F)      s the logistic function

Two batch norms of their own (4 C parameters) stand in for the block's last one and the projection's. Initialisation: scales
1, shifts 0, but for those of the authors' runs: ``mul_bn_shift1`` starts both shifts at 1, so that it starts near
1 + x' + F' + x' F' rather than at x' F'; ``sig_bn_shift_x`` starts that of x at 1, ``bn_sig_shift_f`` that of F.
"""

from torch import Tensor, nn

from study.models.merges.base import FMMNET, RESNET, Merge
from study.registry import MERGES


class Normalised(Merge):
    """Base: ``bn_x`` and ``bn_f`` normalise the two paths, their shifts starting at ``shift_x`` and ``shift_f``."""

    normalizes_branch = True
    normalizes_shortcut = True
    shift_x = 0.0
    shift_f = 0.0

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bn_f = nn.BatchNorm2d(channels)
        self.bn_x = nn.BatchNorm2d(channels)
        nn.init.constant_(self.bn_f.bias, self.shift_f)
        nn.init.constant_(self.bn_x.bias, self.shift_x)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Normalise both paths, then join them."""
        return self.join(self.bn_x(x), self.bn_f(f))

    def join(self, x: Tensor, f: Tensor) -> Tensor:
        """The operator on the normalised x and F."""
        raise TypeError(f"{type(self).__name__} joins nothing")


@MERGES.register("add_bn", formula="BN(x) + BN(F)", source=RESNET, extra_params="4 * C")
class AddBatchNorm(Normalised):
    """BN(x) + BN(F): addition with the normalisation of ``mul_bn``, its additive twin."""

    def join(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + F."""
        return x + f


@MERGES.register("mul_bn", formula="BN(x) * BN(F)", source=FMMNET, extra_params="4 * C")
class MultiplyBatchNorm(Normalised):
    """BN(x) * BN(F)."""

    def join(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * F."""
        return x * f


@MERGES.register("mul_bn_shift1", formula="BN(x) * BN(F), shifts from 1", source=FMMNET, extra_params="4 * C")
class MultiplyBatchNormShifted(MultiplyBatchNorm):
    """BN(x) * BN(F) with both shifts initialised at 1."""

    shift_x = 1.0
    shift_f = 1.0


@MERGES.register("sig_bn", formula="sigmoid(BN(F)) * BN(x)", source=FMMNET, extra_params="4 * C")
class SigmoidBatchNorm(Normalised):
    """sigmoid(BN(F)) * BN(x): the branch gates the normalised shortcut."""

    def join(self, x: Tensor, f: Tensor) -> Tensor:
        """Return sigmoid(F) * x."""
        return f.sigmoid() * x


@MERGES.register(
    "sig_bn_shift_x", formula="sigmoid(BN(F)) * BN(x), x's shift from 1", source=FMMNET, extra_params="4 * C"
)
class SigmoidBatchNormShifted(SigmoidBatchNorm):
    """sigmoid(BN(F)) * BN(x) with the shift of x initialised at 1, that of F at 0."""

    shift_x = 1.0


@MERGES.register("bn_sig", formula="(sigmoid(BN(x)) + 1/2) * BN(F)", source=FMMNET, extra_params="4 * C")
class BatchNormSigmoid(Normalised):
    """(sigmoid(BN(x)) + 1/2) * BN(F): the shortcut gates the normalised branch, the gate within (1/2, 3/2)."""

    def join(self, x: Tensor, f: Tensor) -> Tensor:
        """Return (sigmoid(x) + 1/2) * F."""
        return (x.sigmoid() + 0.5) * f


@MERGES.register(
    "bn_sig_shift_f", formula="(sigmoid(BN(x)) + 1/2) * BN(F), F's shift from 1", source=FMMNET, extra_params="4 * C"
)
class BatchNormSigmoidShifted(BatchNormSigmoid):
    """(sigmoid(BN(x)) + 1/2) * BN(F) with the shift of F initialised at 1, that of x at 0."""

    shift_f = 1.0


@MERGES.register("sig_sig", formula="(sigmoid(BN(x)) + 1/2) * sigmoid(BN(F))", source=FMMNET, extra_params="4 * C")
class SigmoidSigmoid(Normalised):
    """(sigmoid(BN(x)) + 1/2) * sigmoid(BN(F)): both paths bounded, the output within (0, 3/2)."""

    def join(self, x: Tensor, f: Tensor) -> Tensor:
        """Return (sigmoid(x) + 1/2) * sigmoid(F)."""
        return (x.sigmoid() + 0.5) * f.sigmoid()
