"""https://arxiv.org/abs/1512.03385, section 4.1, and 1603.05027: the bottleneck block, its 3x3 convolution at a quarter width.

g = relu(BN(conv1x1(h)))      f = BN(conv3x3(g))      F = attention(BN(conv1x1(relu(f))))
x = h, or BN(conv1x1(h)) where the shape changes
merge site skip:    out = relu(merge(x, F))
merge site branch:  out = relu(x + F), with merge(g, f) in the place of f

At site ``branch`` the operator sits around the 3x3 convolution, between the two hidden maps of one width; in basic blocks too
it merges what a 3x3 convolution took with what it made. ``none`` there is ``add`` at the skip. Where the convolution has a
stride, g comes at the places on which its kernel is centred (a stride without parameters: option A of He et al.). The stride
is that of the 3x3 convolution, as in torchvision; He et al. have it in the first 1x1.
"""

from torch import Tensor, nn

from study.models.attention import build_attention
from study.models.blocks import build_shortcut
from study.models.merges import Merge
from study.models.merges.placement import check_site
from study.registry import MERGES

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a merge. Maps (N, in, H, W) to (N, out, H / stride, W / stride).

    ``hidden``: channels of the 3x3 convolution, out / 4 by default. Raises ``UserError`` for an unknown merge, site,
    attention or form. A merge with batch norms of its own has them in the place of the norm whose output it takes (the
    branch's last one at site ``skip``, the 3x3's at ``branch``) and, at site ``skip``, of the projection's.
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
        self.merge_site, self.stride = merge_site, stride
        hidden = hidden or out_channels // EXPANSION
        at_skip = merge_site == "skip"
        merger: Merge = MERGES[merge].build(out_channels if at_skip else hidden)
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.Identity() if merger.normalizes_branch and not at_skip else nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = nn.Identity() if merger.normalizes_branch and at_skip else nn.BatchNorm2d(out_channels)
        self.attention = build_attention(attention, attention_form, out_channels)
        self.shortcut = build_shortcut(in_channels, out_channels, stride, merger, merge_site)
        self.merge = merger

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        g = self.bn1(self.conv1(h)).relu()
        inner = self.bn2(self.conv2(g))
        if self.merge_site == "branch":
            inner = self.merge(g[..., :: self.stride, :: self.stride], inner)
        f = self.attention(self.bn3(self.conv3(inner.relu())))
        x = self.shortcut(h)
        merged: Tensor = self.merge(x, f) if self.merge_site == "skip" else x + f
        return merged.relu()
