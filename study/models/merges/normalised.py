"""Merges of a normalised shortcut and a normalised branch, and those of the authors' runs that normalise one path or neither.

A path without a norm comes raw: the block leaves its own batch norm out (and that of a projection). Initialisation: scales 1,
shifts 0, but for those of the authors' runs with a shift in their name. What the authors found is in
``search_spaces/caltech101_authors.yaml``.

Source: https://arxiv.org/abs/2106.15067
"""

from torch import Tensor, nn

from study.models.merges.base import FMMNET, RESNET, Merge
from study.registry import MERGES


class Normalised(Merge):
    """Base: the batch norms ``bn_f`` and ``bn_x`` take the place of the block's last one and the projection's.

    ``norms``: the paths that have one (2 C parameters each). ``shift_x`` and ``shift_f``: where their shifts start.
    """

    normalizes_branch = True
    normalizes_shortcut = True
    norms: tuple[str, ...] = ("f", "x")
    shift_x = 0.0
    shift_f = 0.0

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        if "f" in self.norms:
            self.bn_f = nn.BatchNorm2d(channels)
            nn.init.constant_(self.bn_f.bias, self.shift_f)
        if "x" in self.norms:
            self.bn_x = nn.BatchNorm2d(channels)
            nn.init.constant_(self.bn_x.bias, self.shift_x)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Normalise the paths, then join them."""
        return self._join(self.bn_x(x) if "x" in self.norms else x, self.bn_f(f) if "f" in self.norms else f)

    def _join(self, x: Tensor, f: Tensor) -> Tensor:
        """The operator on the normalised x and F."""
        raise TypeError(f"{type(self).__name__} joins nothing")


@MERGES.register("add_bn", formula="BN(x) + BN(F)", source=RESNET, extra_params="4 * C")
class AddBatchNorm(Normalised):
    """BN(x) + BN(F): addition with the normalisation of ``mul_bn``, its additive twin."""

    def _join(self, x: Tensor, f: Tensor) -> Tensor:
        return x + f


@MERGES.register("add_bn_f", formula="x + BN(F)", source=RESNET, extra_params="2 * C")
class AddBranchNorm(AddBatchNorm):
    """x + BN(F): the authors' baseline, for blocks that leave their branch without a norm, x as the block has it.

    In a block that normalises its branch it is ``add``.
    """

    normalizes_shortcut = False
    norms = ("f",)


@MERGES.register("mul_bn", formula="BN(x) * BN(F)", source=FMMNET, extra_params="4 * C")
class MultiplyBatchNorm(Normalised):
    """BN(x) * BN(F)."""

    def _join(self, x: Tensor, f: Tensor) -> Tensor:
        return x * f


@MERGES.register("mul_bn_shift1", formula="BN(x) * BN(F), shifts from 1", source=FMMNET, extra_params="4 * C")
class MultiplyBatchNormShifted(MultiplyBatchNorm):
    """BN(x) * BN(F) with both shifts initialised at 1: it starts near 1 + x' + F' + x' F' rather than at x' F'."""

    shift_x = 1.0
    shift_f = 1.0


@MERGES.register("sig_bn", formula="sigmoid(BN(F)) * BN(x)", source=FMMNET, extra_params="4 * C")
class SigmoidBatchNorm(Normalised):
    """sigmoid(BN(F)) * BN(x): the branch gates the normalised shortcut."""

    def _join(self, x: Tensor, f: Tensor) -> Tensor:
        return f.sigmoid() * x


@MERGES.register(
    "sig_bn_shift_x", formula="sigmoid(BN(F)) * BN(x), x's shift from 1", source=FMMNET, extra_params="4 * C"
)
class SigmoidBatchNormShifted(SigmoidBatchNorm):
    """sigmoid(BN(F)) * BN(x) with the shift of x initialised at 1, that of F at 0."""

    shift_x = 1.0


@MERGES.register("sig1_bn", formula="(sigmoid(F) + 1) * BN(x)", source=FMMNET, extra_params="2 * C")
class RaisedSigmoidBatchNorm(Normalised):
    """(sigmoid(F) + 1) * BN(x): the branch, not normalised, gates the normalised shortcut within (1, 2)."""

    norms = ("x",)

    def _join(self, x: Tensor, f: Tensor) -> Tensor:
        return (f.sigmoid() + 1) * x


@MERGES.register("bn_sig", formula="(sigmoid(BN(x)) + 1/2) * BN(F)", source=FMMNET, extra_params="4 * C")
class BatchNormSigmoid(Normalised):
    """(sigmoid(BN(x)) + 1/2) * BN(F): the shortcut gates the normalised branch, the gate within (1/2, 3/2)."""

    def _join(self, x: Tensor, f: Tensor) -> Tensor:
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

    def _join(self, x: Tensor, f: Tensor) -> Tensor:
        return (x.sigmoid() + 0.5) * f.sigmoid()


@MERGES.register("sig_sig_raw", formula="sigmoid(x) * sigmoid(F)", source=FMMNET, extra_params="0")
class SigmoidSigmoidRaw(Normalised):
    """sigmoid(x) * sigmoid(F), neither path normalised: the output within (0, 1)."""

    norms: tuple[str, ...] = ()

    def _join(self, x: Tensor, f: Tensor) -> Tensor:
        return x.sigmoid() * f.sigmoid()


@MERGES.register("sig_sig_bn_f", formula="sigmoid(x) * sigmoid(BN(F))", source=FMMNET, extra_params="2 * C")
class SigmoidSigmoidBranchNorm(SigmoidSigmoidRaw):
    """sigmoid(x) * sigmoid(BN(F)): the shortcut not normalised, the output within (0, 1)."""

    norms = ("f",)
