"""StarNet: a depthwise 7x7 convolution, two maps of a wider one joined by a product, and their sum for a twin.

u = BN(dw7x7(x))      a = relu6(W1 u)      b = W2 u      F = attention(dw7x7(BN(W3 M(a, b))))      x = h, or BN(conv3x3(h))
merge site branch:  out = x + F,        M = merge      (``mul``: StarNet's star; ``add``: its ablation, the sum)
merge site skip:    out = merge(x, F),  M = sum

W1 and W2 widen four times, W3 leads back. So ``add`` is the sum twin at either site, and blocks without the operator
(``merge_where``) are that twin. Every convolution has a bias; no norm and no ReLU follow F or the merge.

Source: https://arxiv.org/abs/2403.19967
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from study.errors import UserError
from study.models.blocks import Block, BlockParts
from study.models.merges import Merge
from study.models.networks import ResNet
from study.models.stages import Layout
from study.registry import MERGES, NETWORKS

SOURCE = "https://github.com/ma-xu/Rewrite-the-Stars"


class StarBlock(Block):
    """One block. ``hidden``: channels of the maps that are joined, four times ``out_channels`` by default.

    Where the shape changes, a 3x3 convolution with the stride and a batch norm come first, as in the published code; what
    follows keeps the shape. At site ``branch`` an operator that says how the hidden map is normalised (``make_hidden_norm``,
    ``hidden``) has that norm on W1 u, in the place of relu6.
    """

    inside = 4

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, parts: BlockParts, *, hidden: int | None = None
    ) -> None:
        super().__init__()
        hidden = hidden or self.inside * out_channels
        merge: Merge = MERGES[parts.merge].build(out_channels if parts.at_skip else hidden)
        self.down: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
            self.down = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
        self.conv1 = nn.Conv2d(out_channels, out_channels, 7, padding=3, groups=out_channels)
        self.bn1 = nn.BatchNorm2d(out_channels)
        # an operator inside that drops a has no map which nothing trains
        self.w1 = nn.Conv2d(out_channels, hidden, 1) if parts.at_skip or merge.uses_shortcut else None
        self.w2 = nn.Conv2d(out_channels, hidden, 1)
        own = not parts.at_skip and type(merge).hidden is not Merge.hidden
        self.hidden_norm = merge.make_hidden_norm(hidden) if own else None
        self.w3 = nn.Conv2d(hidden, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 7, padding=3, groups=out_channels)
        self.finish(out_channels, out_channels, 1, parts, merge)

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        x = self.down(h)
        u = self.bn1(self.conv1(x))
        b = self.w2(u)
        a = b if self.w1 is None else self.w1(u)
        a = functional.relu6(a) if self.hidden_norm is None else self.merge.hidden(self.hidden_norm(a))[0]
        joined = a + b if self.merge_site == "skip" else self.merge(a, b)
        f = self.attention(self.conv2(self.bn2(self.w3(joined))))
        out: Tensor = self.merge(x, f) if self.merge_site == "skip" else x + f
        return out


@NETWORKS.register(
    "cifar_starnet",
    formula="3x3 stem, 3 stages of depth / 3 blocks: dw7x7, M(relu6(W1 u), W2 u) four times as wide, W3, dw7x7",
    source=SOURCE,
    smallest_depth=3,
)
class CifarStarNet(ResNet):
    """StarNet for small images: ``width``, 2 and 4 times ``width`` channels. ``depth`` counts blocks: 3n.

    The stem has relu6, a batch norm follows the stages. The published networks, for ImageNet, differ in the stem's stride, in
    four stages that all halve the resolution, and in their truncated normal start. ``mul`` at ``branch`` is their star.
    """

    stem_bias = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.last_bn = nn.BatchNorm2d(self.head.in_features)

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Three stages of n blocks."""
        if depth % 3 or depth < 3:
            raise UserError(f"depth = {depth!r}: a cifar_starnet has depth 3n (3, 6, 9, 12), its number of blocks")
        return Layout(block=StarBlock, stem=width, width=width, num_blocks=(depth // 3,) * 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        h = self.last_bn(self.stages(self.stem(self.normalize(x))))
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits

    def stem(self, x: Tensor) -> Tensor:
        """Return the first stage's input, from normalised pixels."""
        return functional.relu6(self.bn(self.conv(x)))
