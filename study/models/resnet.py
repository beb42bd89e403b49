"""https://arxiv.org/abs/1512.03385, section 4.2: CIFAR ResNets of depth 6n + 2, for small images of any size.

A 3x3 stem, three stages of n blocks (the second and third halve the resolution), global average pooling, one linear layer.
Basic blocks give w, 2w, 4w channels; bottlenecks (depth 9n + 2, as 1603.05027 has them) the fourfold. Normalisation of the
input is the first layer: networks take pixels in [0, 1]. ``ResNet`` is what all residual networks share.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from study.errors import UserError
from study.models.blocks import BasicBlock
from study.models.bottleneck import EXPANSION, Bottleneck
from study.models.stages import Layout, Stage, build_stages
from study.registry import NETWORKS


class Normalize(nn.Module):
    """(x - mean) / deviation by channel, as buffers, so that gradients with respect to x are in pixel units."""

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

    A network says its ``layout`` for a depth and a width, and its stem; with ``preactivation`` the batch norm
    and ReLU come after the stages, not after the stem. Blocks that ``merge_where`` leaves out have ``add`` at the skip;
    attention is in all blocks. ``dropout`` is for networks whose blocks have a place for it. Raises ``UserError`` for a
    depth that the network does not have and for unknown levels.
    """

    preactivation: ClassVar[bool] = False
    stem_kernel: ClassVar[int] = 3
    stem_stride: ClassVar[int] = 1

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        num_classes: int,
        mean: Sequence[float],
        deviation: Sequence[float],
        merge: str,
        merge_site: str,
        attention: str,
        attention_form: str,
        merge_where: str = "all",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layout, kernel = self.layout(depth, width), self.stem_kernel
        channels = layout.stages[-1].channels
        self.normalize = Normalize(mean, deviation)
        self.conv = nn.Conv2d(len(mean), layout.stem, kernel, stride=self.stem_stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels if self.preactivation else layout.stem)
        self.stages = build_stages(
            layout,
            merge=merge,
            merge_site=merge_site,
            merge_where=merge_where,
            attention=attention,
            attention_form=attention_form,
            dropout=dropout,
        )
        self.head = nn.Linear(channels, num_classes)

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """The network's table of stages. Raises ``UserError`` for a depth that it does not have."""
        raise TypeError("this network has no layout")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        h = self.stages(self.stem(self.normalize(x)))
        if self.preactivation:
            h = self.bn(h).relu()
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits

    def stem(self, x: Tensor) -> Tensor:
        """What the first stage takes, from normalised pixels."""
        h: Tensor = self.conv(x)
        return h if self.preactivation else self.bn(h).relu()


@NETWORKS.register(
    "cifar_resnet",
    formula="3x3 stem, 3 stages of (depth - 2) / 6 basic blocks",
    source="https://arxiv.org/abs/1512.03385",
    smallest_depth=8,
)
class CifarResNet(ResNet):
    """Basic blocks of ``width``, 2 and 4 times ``width`` channels (published: 16). Depth 6n + 2."""

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Three stages of n blocks."""
        num_blocks, rest = divmod(depth - 2, 6)
        if rest or num_blocks < 1:
            raise UserError(f"depth = {depth!r}: a cifar_resnet has depth 6n + 2 (8, 14, 20, 26, 32, 44, 56, 110)")
        return three_stages(BasicBlock, num_blocks, stem=width, width=width)


@NETWORKS.register(
    "cifar_resnet_bottleneck",
    formula="3x3 stem, 3 stages of (depth - 2) / 9 bottleneck blocks",
    source="https://arxiv.org/abs/1603.05027",
    smallest_depth=11,
)
class CifarResNetBottleneck(ResNet):
    """Bottlenecks of ``width``, 2 and 4 times ``width`` hidden channels (published: 16), the fourfold outside.

    Depth 9n + 2. Post-activation, as the ResNet-110 and ResNet-164 baselines of 1603.05027.
    """

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Three stages of n blocks."""
        num_blocks, rest = divmod(depth - 2, 9)
        if rest or num_blocks < 1:
            raise UserError(f"depth = {depth!r}: a cifar_resnet_bottleneck has depth 9n + 2 (11, 20, 29, 56, 110, 164)")
        return three_stages(Bottleneck, num_blocks, stem=width, width=width, expansion=EXPANSION)


def three_stages(block: type[nn.Module], num_blocks: int, *, stem: int, width: int, expansion: int = 1) -> Layout:
    """CIFAR's stages: ``width``, 2 and 4 times ``width`` hidden channels, the resolution halved before the last two."""
    stages = [
        Stage(
            num_blocks=num_blocks,
            channels=expansion * width * 2**index,
            hidden=width * 2**index,
            stride=2 if index else 1,
        )
        for index in range(3)
    ]
    return Layout(block=block, stem=stem, stages=tuple(stages))
