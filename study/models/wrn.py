"""https://arxiv.org/abs/1605.07146 (Zagoruyko and Komodakis 2016): wide residual networks WRN-d-k, pre-activation.

A 3x3 stem of 16 channels, three stages of n = (d - 4) / 6 pre-activation blocks of 16k, 32k and 64k channels (the second and
third halve the resolution), batch norm and ReLU, global average pooling, one linear layer. The three shape-changing shortcuts
count as convolutions, hence the 4. The authors' recipe has dropout .3 between the two convolutions of a block.
"""

from study.errors import UserError
from study.models.preactivation import PreActivationBlock
from study.models.resnet import ResNet, three_stages
from study.models.stages import Layout
from study.registry import NETWORKS

STEM = 16


@NETWORKS.register(
    "wrn",
    formula="3x3 stem of 16, 3 stages of (depth - 4) / 6 pre-activation blocks, 16 * width channels and up",
    source="https://arxiv.org/abs/1605.07146",
    smallest_depth=10,
    dropout=True,
)
class WideResNet(ResNet):
    """WRN-``depth``-``width``: ``width`` is the widening factor k (published: 1 to 12; WRN-28-10 has 10). Depth 6n + 4.

    Beware of the settings' default width of 16, which here is a factor. ``study/models/preactivation.py`` says what x and F
    are, and where an operator's own batch norms go.
    """

    preactivation = True

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Three stages of n blocks."""
        num_blocks, rest = divmod(depth - 4, 6)
        if rest or num_blocks < 1:
            raise UserError(f"depth = {depth!r}: a wrn has depth 6n + 4 (10, 16, 22, 28, 40)")
        return three_stages(PreActivationBlock, num_blocks, stem=STEM, width=STEM * width)
