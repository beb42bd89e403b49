"""``authors_59``: the authors' row with normalisation-based attention on the shortcut.

Their notes give it as a formula on the block's input. Where the shape changes the input cannot be added, so attention is on
the shortcut, there as everywhere: x is the input, or its projection.

Source: https://arxiv.org/abs/2111.12419
"""

from torch import Tensor, nn

from study.models.merges.base import Merge
from study.models.merges.rows import SOURCE
from study.registry import MERGES


class NormalizationAttentionSkip(Merge):
    """x * sigmoid(w_c * BN(x)) + BN(F), w_c = abs(gamma_c) / sum(abs(gamma)), gamma the scale of x's norm (4 C parameters).

    w is detached, as in the code of that attention's authors.
    """

    normalizes_branch = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bn_f = nn.BatchNorm2d(channels)
        self.bn_x = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return the weighted shortcut and the normalised branch, added."""
        scale = self.bn_x.weight.detach().abs()
        weight = (scale / scale.sum()).view(1, -1, 1, 1)
        merged: Tensor = x * (weight * self.bn_x(x)).sigmoid() + self.bn_f(f)
        return merged


def register_nam() -> None:
    """Register ``authors_59``. Trait ``row``: 59."""
    registered = MERGES.register(
        "authors_59",
        formula="x * sigmoid(abs(gamma_c) / sum(abs(gamma)) * BN(x)) + BN(F), gamma the scale of BN(x)",
        source=SOURCE,
        extra_params="4 * C",
        row=59,
    )
    registered(NormalizationAttentionSkip)
