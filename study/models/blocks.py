"""Residual blocks: basic, bottleneck and pre-activation, each with a merge operator and an attention as parts.

g = relu(BN(conv3x3(h)))      F = attention(BN(conv3x3(g)))      x = h, or BN(conv1x1(h)) where the shape changes
merge site skip:    out = relu(merge(x, F))
merge site branch:  out = relu(x + merge(g, F))

This is the basic block; the docstrings of the other two say where they differ. At site ``branch`` the operator takes the
branch's hidden map g for its shortcut, as in-branch gates do (StarNet, 2403.19967), and the outer skip stays additive. So
``none`` at the branch is ``add`` at the skip. F is the same at both sites. For relu and BN read the network's activation and
norm.

Source: https://arxiv.org/abs/1512.03385
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from study.models.activations import ACTIVATIONS
from study.models.attention import build_attention
from study.models.fixed_draws import HashedDropout
from study.models.merges import Merge
from study.models.merges.placement import check_site
from study.registry import MERGES


@dataclass(frozen=True, kw_only=True)
class BlockParts:
    """The levels from which a network builds its blocks. Raises ``UserError`` for an unknown merge site.

    ``merge_where`` says which blocks have ``merge``; the others have ``add`` at the skip. ``attention_where`` says which have
    ``attention``; the others have none. ``dropout`` is for blocks with a place for it. Operators and gates keep the
    activations that their formulas name.
    """

    merge: str = "add"
    merge_site: str = "skip"
    merge_where: str = "all"
    attention_where: str = "all"
    attention: str = "none"
    attention_form: str = "none"
    dropout: float = 0.0
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_site(self.merge_site)

    @property
    def at_skip(self) -> bool:
        """Whether the operator takes the place of the skip's addition."""
        return self.merge_site == "skip"


class Block(nn.Module):
    """Base of the blocks. Maps (N, in, H, W) to (N, out, H / stride, W / stride).

    ``expansion`` and ``inside``: output channels and hidden ones, by the width of a stage.

    Arguments of all: ``in_channels``, ``out_channels``, ``stride``, ``parts``, and ``hidden``, the channels inside; others
    than the default go with operators that match a cost. Raises ``UserError`` for an unknown merge, attention or form.
    """

    expansion: ClassVar[int] = 1
    inside: ClassVar[int] = 1

    def finish(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        parts: BlockParts,
        merge: Merge,
        *,
        norm: bool = True,
        bias: bool = False,
    ) -> None:
        """Add attention, shortcut and ``merge``, after the convolutions: the order of parameters is kept in checkpoints.

        The shortcut is the identity; where the shape changes, a 1x1 convolution and, with ``norm``, a batch norm. An operator
        at the skip that normalises the shortcut leaves the norm out; where one drops x, nothing is projected.
        """
        self.merge_site = parts.merge_site
        self.activation = ACTIVATIONS[parts.activation]
        merge.activation = self.activation
        self.attention = build_attention(parts.attention, parts.attention_form, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        changes = stride != 1 or in_channels != out_channels
        if changes and (merge.uses_shortcut or not parts.at_skip):
            normalised = norm and not (parts.at_skip and merge.normalizes_shortcut)
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=bias),
                nn.BatchNorm2d(out_channels) if normalised else nn.Identity(),
            )
        self.merge = merge

    def hidden(self, normalised: Tensor) -> tuple[Tensor, Tensor]:
        """From the normalised hidden map: what an operator at the branch takes, and what the next convolution takes."""
        if self.merge_site == "branch":
            taken: tuple[Tensor, Tensor] = self.merge.hidden(normalised)
            return taken
        g = self.activation(normalised)
        return g, g

    def merged(self, x: Tensor, g: Tensor, f: Tensor) -> Tensor:
        """The output before an activation, from shortcut ``x``, hidden map ``g`` and branch ``f``."""
        out: Tensor = self.merge(x, f) if self.merge_site == "skip" else x + self.merge(g, f)
        return out


def hidden_norm(merge: Merge, parts: BlockParts) -> Callable[[int], nn.BatchNorm2d]:
    """What makes the norm of a block's hidden map: the operator's, where it takes that map."""
    return nn.BatchNorm2d if parts.at_skip else merge.make_hidden_norm


class BasicBlock(Block):
    """Two 3x3 convolutions and a merge. ``hidden``: channels between the convolutions, ``out_channels`` by default.

    A merge's own batch norms take the place of the branch's last one and, at site ``skip``, of the projection's.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, parts: BlockParts, *, hidden: int | None = None
    ) -> None:
        super().__init__()
        hidden = hidden or out_channels
        merge: Merge = MERGES[parts.merge].build(out_channels)
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, stride=stride, padding=1, bias=False)
        self.bn1 = hidden_norm(merge, parts)(hidden)
        self.conv2 = nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.Identity() if merge.normalizes_branch else nn.BatchNorm2d(out_channels)
        self.finish(in_channels, out_channels, stride, parts, merge)

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        g, taken = self.hidden(self.bn1(self.conv1(h)))
        f = self.attention(self.bn2(self.conv2(taken)))
        return self.activation(self.merged(self.shortcut(h), g, f))


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions and a merge. ``hidden``: channels of the 3x3, a quarter of ``out_channels`` by default.

    g = relu(BN(conv1x1(h)))      f = BN(conv3x3(g))      F = attention(BN(conv1x1(relu(f))))
    merge site branch:  out = relu(x + F), with merge(g, f) in the place of f

    At site ``branch`` the operator sits around the 3x3 convolution, between the two hidden maps of one width; in basic blocks
    too it merges what a 3x3 convolution takes with what it makes. Where the convolution has a stride, g is sampled at its
    kernel's centres (a stride without parameters: option A of He et al.). The stride is that of the 3x3 convolution, as in
    torchvision; He et al. have it in the first 1x1. A merge with batch norms of its own has them in the place of the norm
    whose output it takes (at ``skip`` the branch's last one, at ``branch`` the 3x3's) and, at ``skip``, of the projection's.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, parts: BlockParts, *, hidden: int | None = None
    ) -> None:
        super().__init__()
        self.stride = stride
        hidden = hidden or out_channels // self.expansion
        merge: Merge = MERGES[parts.merge].build(out_channels if parts.at_skip else hidden)
        own = merge.normalizes_branch
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = hidden_norm(merge, parts)(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.Identity() if own and not parts.at_skip else nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = nn.Identity() if own and parts.at_skip else nn.BatchNorm2d(out_channels)
        self.finish(in_channels, out_channels, stride, parts, merge)

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        g, taken = self.hidden(self.bn1(self.conv1(h)))
        inner = self.bn2(self.conv2(taken))
        if self.merge_site == "branch":
            inner = self.merge(g[..., :: self.stride, :: self.stride], inner)
        f = self.attention(self.bn3(self.conv3(self.activation(inner))))
        x = self.shortcut(h)
        out: Tensor = self.merge(x, f) if self.merge_site == "skip" else x + f
        return self.activation(out)


class PreActivationBlock(Block):
    """Two 3x3 convolutions, each after BN and ReLU, and a merge (1603.05027, 1605.07146). ``hidden`` as in ``BasicBlock``.

    a = relu(BN(h))      g = relu(BN(conv3x3(a)))      F = attention(conv3x3(dropout(g)))      x = h, or conv1x1(a)
    merge site skip:    out = merge(x, F)
    merge site branch:  out = x + merge(g, F)

    Neither path ends in a batch norm or a ReLU: x is the running sum of the blocks before and may be of either sign, F is what
    a convolution gives. So an operator's own batch norms take the place of none: BN(x) and BN(F) are the only norms on the two
    paths. At site ``branch`` g is the hidden map before dropout, which thins the convolution's input alone. Where the shape
    changes x is projected from a, as in the authors' code, without a norm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, parts: BlockParts, *, hidden: int | None = None
    ) -> None:
        super().__init__()
        hidden = hidden or out_channels
        merge: Merge = MERGES[parts.merge].build(out_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, stride=stride, padding=1, bias=False)
        self.bn2 = hidden_norm(merge, parts)(hidden)
        self.dropout = HashedDropout(parts.dropout) if parts.dropout else nn.Identity()
        self.conv2 = nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False)
        self.finish(in_channels, out_channels, stride, parts, merge, norm=False)

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        a = self.activation(self.bn1(h))
        g, taken = self.hidden(self.bn2(self.conv1(a)))
        f = self.attention(self.conv2(self.dropout(taken)))
        x = h if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        return self.merged(x, g, f)


class AuthorsBlock(Block):
    """The block of the authors' public code (xyegithub/Featrue-map-multiplication), pre-activation. ``hidden`` as before.

    u = dropout(conv3x3(relu(BN(h))))      g = relu(BN2(u))      F = attention(conv3x3(g))      x = h, or conv1x1(h)
    merge site skip:    out = merge(x, F)
    merge site branch:  out = x + merge(g, F)

    Unlike ``PreActivationBlock`` it has dropout before BN2, the stride in the second convolution, a bias in each convolution,
    and x projected from h itself. No ReLU follows the merge. At site ``branch`` g is sampled at the kernel's centres where the
    convolution has a stride, as in ``Bottleneck``; ``hidden`` of the operator may place BN2's ReLU elsewhere.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, parts: BlockParts, *, hidden: int | None = None
    ) -> None:
        super().__init__()
        self.stride = stride
        hidden = hidden or out_channels
        merge: Merge = MERGES[parts.merge].build(out_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.dropout = HashedDropout(parts.dropout) if parts.dropout else nn.Identity()
        self.bn2 = hidden_norm(merge, parts)(hidden)
        self.conv2 = nn.Conv2d(hidden, out_channels, 3, stride=stride, padding=1)
        self.finish(in_channels, out_channels, stride, parts, merge, norm=False, bias=True)

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block."""
        g, taken = self.hidden(self.bn2(self.dropout(self.conv1(self.activation(self.bn1(h))))))
        f = self.attention(self.conv2(taken))
        return self.merged(self.shortcut(h), g[..., :: self.stride, :: self.stride], f)
