"""A residual network as a table of stages: which blocks merge, and how wide those are that match another operator's cost.

A block with ``add_matched_star`` has as many hidden channels as bring its parameters nearest to those of the same block with
``star``. What is left over, at most half a hidden channel, is carried to the next block that merges, so the network's total
is off by at most half a hidden channel of the last one. No block is narrowed: where an operator saves parameters (its norms
stand in for more than they cost), addition keeps them.

The channels lie at the operator's own resolution, so FLOPs match too: at the published widths to 1 per cent. A bottleneck
that halves the resolution costs more, since its first 1x1 convolution works before the stride: to 3 per cent from depth 29
on, to 8 at depth 11. Rounding to whole channels makes it more at smaller widths.

Source: https://arxiv.org/abs/1605.07146
"""

import bisect
import functools
from dataclasses import dataclass, replace

import torch
from torch import nn

from study.models.blocks import Block, BlockParts
from study.models.cost import num_params
from study.models.merges.placement import blocks_chosen
from study.registry import MERGES

# in channels, out channels, stride
Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The kind of ``block``, the channels that the ``stem`` gives, and the number of blocks per stage.

    Stages have ``width``, 2, 4, ... times ``width`` channels; all but the first halve the resolution.
    """

    block: type[Block]
    stem: int
    width: int
    num_blocks: tuple[int, ...]

    @property
    def widths(self) -> list[int]:
        """Channels per stage, before a block's ``expansion``."""
        return [self.width * 2**index for index in range(len(self.num_blocks))]

    @property
    def channels(self) -> int:
        """Channels after the last stage."""
        return self.block.expansion * self.widths[-1]


def build_stages(layout: Layout, parts: BlockParts) -> nn.Sequential:
    """The stages of ``layout``, each a sequence of blocks. Raises ``UserError`` for an unknown level."""
    merges = blocks_chosen("merge_where", parts.merge_where, layout.num_blocks)
    attends = blocks_chosen("attention_where", parts.attention_where, layout.num_blocks)
    widening, stages, channels = _Widening(layout.block, parts), nn.Sequential(), layout.stem
    for width, merging, attending in zip(layout.widths, merges, attends, strict=True):
        stage = nn.Sequential()
        for merged, attended in zip(merging, attending, strict=True):
            own = parts if merged else replace(parts, merge="add", merge_site="skip")
            own = own if attended else replace(own, attention="none", attention_form="none")
            halved = len(stages) > 0 and len(stage) == 0
            shape = (channels, layout.block.expansion * width, 2 if halved else 1)
            plain = layout.block.inside * width
            stage.append(layout.block(*shape, own, hidden=widening.hidden(shape, plain) if merged else plain))
            channels = shape[1]
        stages.append(stage)
    return stages


class _Widening:
    """Hidden widths for the blocks of one network that merge, asked for from first to last."""

    def __init__(self, block: type[Block], parts: BlockParts) -> None:
        self._operator = MERGES[parts.merge].traits.get("matches")
        self._merge = parts.merge
        self._owed = 0

        @functools.cache
        def cost(shape: Shape, hidden: int, merge: str) -> int:
            # attention is the same in both and is left out
            bare = BlockParts(merge=merge, merge_site=parts.merge_site)
            with torch.device("meta"):  # shapes alone
                return num_params(block(*shape, bare, hidden=hidden))

        self._cost = cost

    def hidden(self, shape: Shape, hidden: int) -> int:
        """The width of the next block, whose plain one is ``hidden``: that one, unless the operator matches another."""
        if self._operator is None:
            return hidden
        wanted = self._owed + self._cost(shape, hidden, self._operator)

        def params(width: int) -> int:
            return self._cost(shape, width, self._merge)

        # a channel costs at least one parameter, and more channels cost more
        widths = range(hidden, hidden + max(wanted - params(hidden), 0) + 2)
        above = bisect.bisect_right(widths, wanted, key=params)
        nearest = min(widths[max(above - 1, 0) : above + 1], key=lambda width: abs(params(width) - wanted))
        self._owed = wanted - params(nearest)
        return nearest
