"""Residual networks: CIFAR's with basic blocks and bottlenecks, wide ones, and ImageNet's.

A network is a stem, a table of stages, global average pooling and one linear layer; its first layer normalises the pixels.

Source: https://arxiv.org/abs/1512.03385
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.errors import UserError
from study.models.activations import ACTIVATIONS
from study.models.blocks import AuthorsBlock, BasicBlock, Block, BlockParts, Bottleneck, PreActivationBlock
from study.models.stages import Layout, build_stages
from study.registry import NETWORKS

RESNET = "https://arxiv.org/abs/1512.03385"
WRN_STEM = 16
# of the authors' last norm: the share of a batch in its running statistics
LAST_MOMENTUM = 0.9


class Normalize(nn.Module):
    """(x - mean) / deviation per channel, as buffers, so that gradients with respect to x are in pixel units."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        return (x - self.mean) / self.deviation


class ResNet(nn.Module):
    """Base of the residual networks. Maps pixels (N, C, H, W) in [0, 1] to logits (N, num_classes).

    A network defines its ``layout`` for a depth and a width, and its stem; with ``preactivation`` the batch norm and ReLU
    come after the stages, not after the stem. Raises ``UserError`` for a depth that it lacks and for unknown levels.
    """

    preactivation: ClassVar[bool] = False
    stem_kernel: ClassVar[int] = 3
    stem_stride: ClassVar[int] = 1
    stem_bias: ClassVar[bool] = False
    # convolutions start as in ``study.models.build``: normal by He et al., or uniform by Glorot and Bengio
    xavier: ClassVar[bool] = False

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        num_classes: int,
        mean: Sequence[float],
        deviation: Sequence[float],
        parts: BlockParts,
    ) -> None:
        super().__init__()
        layout, kernel = self.layout(depth, width), self.stem_kernel
        self.activation = ACTIVATIONS[parts.activation]
        self.normalize = Normalize(mean, deviation)
        self.conv = nn.Conv2d(
            len(mean), layout.stem, kernel, stride=self.stem_stride, padding=kernel // 2, bias=self.stem_bias
        )
        self.bn = nn.BatchNorm2d(layout.channels if self.preactivation else layout.stem)
        self.stages = build_stages(layout, parts)
        self.head = nn.Linear(layout.channels, num_classes)

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """The network's table of stages. Raises ``UserError`` for a depth that it does not have."""
        raise TypeError("this network has no layout")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        h = self.stages(self.stem(self.normalize(x)))
        if self.preactivation:
            h = self.activation(self.bn(h))
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits

    def stem(self, x: Tensor) -> Tensor:
        """Return the first stage's input, from normalised pixels."""
        h: Tensor = self.conv(x)
        return h if self.preactivation else self.activation(self.bn(h))


@NETWORKS.register(
    "cifar_resnet",
    formula="3x3 stem, 3 stages of (depth - 2) / 6 basic blocks",
    source=RESNET,
    smallest_depth=8,
    activation=True,
)
class CifarResNet(ResNet):
    """Basic blocks of ``width``, 2 and 4 times ``width`` channels (published: 16). Depth 6n + 2."""

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Three stages of n blocks."""
        n = _blocks_per_stage(depth, 6, 2, "a cifar_resnet has depth 6n + 2 (8, 14, 20, 26, 32, 44, 56, 110)")
        return Layout(block=BasicBlock, stem=width, width=width, num_blocks=(n, n, n))


@NETWORKS.register(
    "cifar_resnet_bottleneck",
    formula="3x3 stem, 3 stages of (depth - 2) / 9 bottleneck blocks",
    source="https://arxiv.org/abs/1603.05027",
    smallest_depth=11,
    activation=True,
)
class CifarResNetBottleneck(ResNet):
    """Bottlenecks of ``width``, 2 and 4 times ``width`` hidden channels (published: 16), the fourfold outside.

    Depth 9n + 2. Post-activation, as the ResNet-110 and ResNet-164 baselines of 1603.05027.
    """

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Three stages of n blocks."""
        n = _blocks_per_stage(depth, 9, 2, "a cifar_resnet_bottleneck has depth 9n + 2 (11, 20, 29, 56, 110, 164)")
        return Layout(block=Bottleneck, stem=width, width=width, num_blocks=(n, n, n))


@NETWORKS.register(
    "imagenet_resnet",
    formula="7x7 stem and max pooling, 4 stages of basic (depth 18, 34) or bottleneck blocks (50, 101)",
    source=RESNET,
    smallest_depth=18,
    activation=True,
)
class ImageNetResNet(ResNet):
    """ResNet-18, 34, 50 and 101 for images of about 224x224 pixels. Published width: 64; the settings' default, 16, is not.

    With ``merge`` add, without attention, at width 64: torchvision's ``resnet18`` and so on, but for the normalisation inside.
    """

    stem_kernel = 7
    stem_stride = 2
    # depth: block, blocks per stage
    table: ClassVar[dict[int, tuple[type[Block], tuple[int, ...]]]] = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
    }

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Four stages."""
        if depth not in ImageNetResNet.table:
            raise UserError(f"depth = {depth!r}: an imagenet_resnet has depth 18, 34, 50 or 101")
        block, num_blocks = ImageNetResNet.table[depth]
        return Layout(block=block, stem=width, width=width, num_blocks=num_blocks)

    def stem(self, x: Tensor) -> Tensor:
        """Return the first stage's input: a quarter of the resolution."""
        return functional.max_pool2d(super().stem(x), 3, stride=2, padding=1)


@NETWORKS.register(
    "wrn",
    formula="3x3 stem of 16, 3 stages of (depth - 4) / 6 pre-activation blocks, 16 * width channels and up",
    source="https://arxiv.org/abs/1605.07146",
    smallest_depth=10,
    activation=True,
    dropout=True,
)
class WideResNet(ResNet):
    """WRN-``depth``-``width`` (Zagoruyko and Komodakis 2016), pre-activation. Depth 6n + 4.

    ``width`` is the widening factor k (published: 1 to 12; WRN-28-10 has 10): beware of the settings' default of 16. Stages
    have 16k, 32k and 64k channels. The three shape-changing shortcuts count as convolutions, hence the 4. The authors' recipe
    has dropout .3 between the two convolutions of a block.
    """

    preactivation = True

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Three stages of n blocks."""
        n = _blocks_per_stage(depth, 6, 4, "a wrn has depth 6n + 4 (10, 16, 22, 28, 40)")
        return Layout(block=PreActivationBlock, stem=WRN_STEM, width=WRN_STEM * width, num_blocks=(n, n, n))


@NETWORKS.register(
    "authors_wrn",
    formula="wrn as in the authors' public code: biases, raw shortcut, stride in conv2, dropout before its norm, Xavier start",
    source="https://github.com/xyegithub/Featrue-map-multiplication",
    smallest_depth=10,
    activation=True,
    dropout=True,
)
class AuthorsWideResNet(WideResNet):
    """``wrn`` with ``AuthorsBlock``, a bias in each convolution, and a last batch norm of momentum .9. Depth 6n + 4.

    Initialisation: convolutions Xavier-uniform with gain sqrt 2, their biases 0, norms at scale 1 and shift 0; the linear
    layer as torch's default. Their dropout is .3; its masks are hashed here.
    """

    stem_bias = True
    xavier = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.bn.momentum = LAST_MOMENTUM

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Three stages of n blocks."""
        return replace(WideResNet.layout(depth, width), block=AuthorsBlock)


def _blocks_per_stage(depth: int, layers: int, others: int, known: str) -> int:
    """n of depth = ``layers`` * n + ``others``, at least 1. Raises ``UserError`` with the ``known`` depths."""
    n, rest = divmod(depth - others, layers)
    if rest or n < 1:
        raise UserError(f"depth = {depth!r}: {known}")
    return n
