"""https://arxiv.org/abs/1512.03385, section 4.2: CIFAR ResNets of depth 6n + 2, for small images of any size.

A 3x3 stem, three stages of n basic blocks with widths w, 2w, 4w (the second and third halve the resolution), global
average pooling, one linear layer. Normalisation of the input is the first layer: networks take pixels in [0, 1].
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from study.errors import UserError
from study.models.blocks import BasicBlock
from study.models.merges.placement import blocks_that_merge
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


@NETWORKS.register(
    "cifar_resnet",
    formula="3x3 stem, 3 stages of (depth - 2) / 6 basic blocks",
    source="https://arxiv.org/abs/1512.03385",
)
class CifarResNet(nn.Module):
    """Maps pixels (N, C, H, W) in [0, 1] to logits (N, num_classes). ``UserError`` for a depth that is not 6n + 2.

    Blocks that ``merge_where`` leaves out have ``add`` at the skip. Attention is in all blocks.
    """

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
    ) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 6)
        if rest or num_blocks < 1:
            raise UserError(f"depth = {depth!r}: a cifar_resnet has depth 6n + 2 (8, 14, 20, 26, 32, 44, 56, 110)")
        merges = blocks_that_merge(merge_where, [num_blocks] * 3)
        self.normalize = Normalize(mean, deviation)
        self.conv = nn.Conv2d(len(mean), width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        stages, channels = [], width
        for stage in range(3):
            blocks = []
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                out_channels = width * 2**stage
                chosen = merges[stage][block]
                blocks.append(
                    BasicBlock(
                        channels,
                        out_channels,
                        stride,
                        merge=merge if chosen else "add",
                        merge_site=merge_site if chosen else "skip",
                        attention=attention,
                        attention_form=attention_form,
                    )
                )
                channels = out_channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        h = self.bn(self.conv(self.normalize(x))).relu()
        logits: Tensor = self.head(self.stages(h).mean((2, 3)))
        return logits
