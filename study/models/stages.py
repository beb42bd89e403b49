"""https://arxiv.org/abs/1512.03385, table 1: a residual network as a table of stages, built in this one place.

Which blocks merge, at which site, with which attention, and how wide a matched block is, is decided here for every network.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from study.models.merges.placement import blocks_that_merge
from study.models.widening import Widening


@dataclass(frozen=True, kw_only=True)
class Stage:
    """``num_blocks`` blocks that give ``channels``, ``hidden`` inside; the first has the ``stride``, the others 1."""

    num_blocks: int
    channels: int
    hidden: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What builds a block, the channels that the ``stem`` gives, and the stages after it."""

    block: type[nn.Module]
    stem: int
    stages: tuple[Stage, ...]


def build_stages(
    layout: Layout,
    *,
    merge: str,
    merge_site: str,
    merge_where: str,
    attention: str,
    attention_form: str,
    dropout: float = 0.0,
) -> nn.Sequential:
    """The stages of ``layout``, each a sequence of blocks.

    Blocks that ``merge_where`` leaves out have ``add`` at the skip. Attention is in all blocks, and so is ``dropout``, which
    only blocks with a place for it take. Raises ``UserError`` for an unknown level.
    """
    block: Callable[..., nn.Module] = functools.partial(layout.block, dropout=dropout) if dropout else layout.block
    chosen = blocks_that_merge(merge_where, [stage.num_blocks for stage in layout.stages])
    widening = Widening(block, merge, merge_site)
    stages, channels = [], layout.stem
    for stage, merges in zip(layout.stages, chosen, strict=True):
        blocks = []
        for index, merging in enumerate(merges):
            shape = (channels, stage.channels, stage.stride if index == 0 else 1)
            blocks.append(
                block(
                    *shape,
                    hidden=widening.hidden(shape, stage.hidden) if merging else stage.hidden,
                    merge=merge if merging else "add",
                    merge_site=merge_site if merging else "skip",
                    attention=attention,
                    attention_form=attention_form,
                )
            )
            channels = stage.channels
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*stages)
