"""https://arxiv.org/abs/1512.03385 (He et al. 2015): the basic residual block, with its merge operator as a part.

g = relu(BN(conv3x3(h)))      F = attention(BN(conv3x3(g)))      x = h, or BN(conv1x1(h)) where the shape changes
merge site skip:    out = relu(merge(x, F))
merge site branch:  out = relu(x + merge(g, F))

At site ``branch`` the operator takes the branch's hidden map g for its shortcut, as the in-branch gates of StarNet
(https://arxiv.org/abs/2403.19967) and others do, and the outer skip stays additive, whatever the operator does with g. So
``none`` at the branch is ``add`` at the skip. F is the same in both.
"""

from torch import Tensor, nn

from study.models.attention import build_attention
from study.models.merges import Merge
from study.models.merges.placement import check_site
from study.registry import MERGES


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a merge. Maps (N, in, H, W) to (N, out, H / stride, W / stride).

    Raises ``UserError`` for an unknown merge, site, attention or form. A merge with batch norms of its own has them in the
    place of the branch's last one and, at site ``skip``, of the projection's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        merge: str,
        attention: str,
        attention_form: str,
        merge_site: str = "skip",
    ) -> None:
        super().__init__()
        check_site(merge_site)
        self.merge_site = merge_site
        at_skip = merge_site == "skip"
        merger: Merge = MERGES[merge].build(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.Identity() if merger.normalizes_branch else nn.BatchNorm2d(out_channels)
        self.attention = build_attention(attention, attention_form, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if (merger.uses_shortcut or not at_skip) and (stride != 1 or in_channels != out_channels):
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            norm = nn.Identity() if at_skip and merger.normalizes_shortcut else nn.BatchNorm2d(out_channels)
            self.shortcut = nn.Sequential(projection, norm)
        self.merge = merger

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        g = self.bn1(self.conv1(h)).relu()
        f = self.attention(self.bn2(self.conv2(g)))
        x = self.shortcut(h)
        merged: Tensor = self.merge(x, f) if self.merge_site == "skip" else x + self.merge(g, f)
        return merged.relu()
