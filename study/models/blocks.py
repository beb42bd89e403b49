"""https://arxiv.org/abs/1512.03385 (He et al. 2015): the basic residual block, with its merge operator as a part.

F = attention(BN(conv3x3(relu(BN(conv3x3(h))))))      x = h, or BN(conv1x1(h)) where the shape changes
out = relu(merge(x, F))
"""

from torch import Tensor, nn

from study.models.attention import build_attention
from study.models.merge import Merge
from study.registry import MERGES


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a merge. Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, merge: str, attention: str, attention_form: str
    ) -> None:
        super().__init__()
        merger: Merge = MERGES[merge].build(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.Identity() if merger.normalizes_branch else nn.BatchNorm2d(out_channels)
        self.attention = build_attention(attention, attention_form, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if merger.uses_shortcut and (stride != 1 or in_channels != out_channels):
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            norm = nn.Identity() if merger.normalizes_shortcut else nn.BatchNorm2d(out_channels)
            self.shortcut = nn.Sequential(projection, norm)
        self.merge = merger

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        f = self.bn1(self.conv1(h)).relu()
        f = self.attention(self.bn2(self.conv2(f)))
        merged: Tensor = self.merge(self.shortcut(h), f)
        return merged.relu()
