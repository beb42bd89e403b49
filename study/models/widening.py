"""https://arxiv.org/abs/1605.07146: hidden widths with which plain addition costs what another operator costs.

A block with ``add_matched_star`` has as many hidden channels as bring its parameters nearest to those of the same block with
``star``. What is left over, at most half a hidden channel, is carried to the next block that merges, so the network's total
is off by at most half a hidden channel of the last one. No block is narrowed: where an operator saves parameters (its norms
stand in for more than they cost), addition keeps them.

The channels lie at the operator's own resolution, so FLOPs match too: at the published widths to 1 per cent. A bottleneck
that halves the resolution costs more, since its first 1x1 convolution works before the stride: to 3 per cent from depth 29
on, to 8 at depth 11. Rounding to whole channels makes it more at smaller widths.
"""

import bisect
import functools
from collections.abc import Callable

import torch
from torch import nn

from study.models.cost import num_params
from study.registry import MERGES

# in channels, out channels, stride
Shape = tuple[int, int, int]


class Widening:
    """Hidden widths for the blocks of one network that have ``merge`` at ``merge_site``, asked for from first to last.

    ``block`` builds a block. An operator that matches no other leaves every width as it is.
    """

    def __init__(self, block: Callable[..., nn.Module], merge: str, merge_site: str) -> None:
        self._operator = MERGES[merge].traits.get("matches")
        self._owed = 0

        @functools.cache
        def cost(shape: Shape, hidden: int, name: str) -> int:
            with torch.device("meta"):  # shapes alone: attention is the same in both and is left out
                one = block(
                    *shape, hidden=hidden, merge=name, merge_site=merge_site, attention="none", attention_form="none"
                )
            return num_params(one)

        self._cost = cost
        self._merge = merge

    def hidden(self, shape: Shape, hidden: int) -> int:
        """The width of the next block, whose plain one is ``hidden``; never less than that."""
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
