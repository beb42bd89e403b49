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

    ``hidden``: channels between the convolutions, ``out`` by default; others go with operators that match a cost alone.
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
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        check_site(merge_site)
        self.merge_site = merge_site
        hidden = hidden or out_channels
        merger: Merge = MERGES[merge].build(out_channels)
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.Identity() if merger.normalizes_branch else nn.BatchNorm2d(out_channels)
        self.attention = build_attention(attention, attention_form, out_channels)
        self.shortcut = build_shortcut(in_channels, out_channels, stride, merger, merge_site)
        self.merge = merger

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        g = self.bn1(self.conv1(h)).relu()
        f = self.attention(self.bn2(self.conv2(g)))
        x = self.shortcut(h)
        merged: Tensor = self.merge(x, f) if self.merge_site == "skip" else x + self.merge(g, f)
        return merged.relu()


def build_shortcut(
    in_channels: int, out_channels: int, stride: int, merge: Merge, merge_site: str, *, norm: bool = True
) -> nn.Module:
    """The identity; where the shape changes, a 1x1 convolution and, with ``norm``, a batch norm.

    An operator at the skip that normalises the shortcut leaves the norm out; where one drops x, nothing is projected.
    """
    at_skip = merge_site == "skip"
    if (at_skip and not merge.uses_shortcut) or (stride == 1 and in_channels == out_channels):
        return nn.Identity()
    projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    normalised = norm and not (at_skip and merge.normalizes_shortcut)
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels) if normalised else nn.Identity())
