"""https://arxiv.org/abs/1603.05027 (He et al. 2016) and 1605.07146 (Zagoruyko and Komodakis 2016): pre-activation blocks.

a = relu(BN(h))      g = relu(BN(conv3x3(a)))      F = attention(conv3x3(dropout(g)))
x = h, or conv1x1(a) where the shape changes
merge site skip:    out = merge(x, F)
merge site branch:  out = x + merge(g, F)

Neither path ends in a batch norm or a ReLU: x is the running sum of the blocks before and may be of either sign, F is what a
convolution gives. An operator with batch norms of its own therefore adds them and takes the place of none: BN(x) and BN(F)
are the only norms on the two paths. At site ``branch`` g is the hidden map before dropout, which thins the convolution's
input alone. In the shape-changing blocks x is projected from a, as in the authors' code, without a norm.
"""

from torch import Tensor, nn

from study.models.attention import build_attention
from study.models.blocks import build_shortcut
from study.models.dropout import HashedDropout
from study.models.merges import Merge
from study.models.merges.placement import check_site
from study.registry import MERGES


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after BN and ReLU, and a merge. Maps (N, in, H, W) to (N, out, H / stride, W / stride).

    ``hidden``: channels between the convolutions, ``out`` by default; others go with operators that match a cost alone.
    ``dropout``: share of g's values dropped on the way to the second convolution. Raises ``UserError`` for an unknown
    merge, site, attention or form.
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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_site(merge_site)
        self.merge_site = merge_site
        hidden = hidden or out_channels
        merger: Merge = MERGES[merge].build(out_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.dropout = HashedDropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False)
        self.attention = build_attention(attention, attention_form, out_channels)
        self.shortcut = build_shortcut(in_channels, out_channels, stride, merger, merge_site, norm=False)
        self.merge = merger

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        a = self.bn1(h).relu()
        g = self.bn2(self.conv1(a)).relu()
        f = self.attention(self.conv2(self.dropout(g)))
        x = h if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        merged: Tensor = self.merge(x, f) if self.merge_site == "skip" else x + self.merge(g, f)
        return merged
