"""Where in a block, and in which blocks, a merge operator sits; and in which blocks attention does.

Site: ``skip`` (the operator takes the place of the addition) or ``branch`` (inside the residual branch, the outer skip
additive). Blocks: ``all``; ``first`` or ``last`` of each stage; ``alternate``, every second one counted through the network
from its first block. The other blocks are plain residual blocks (``add`` at the skip), or without attention. With one block
per stage, as at depth 8, ``all``, ``first`` and ``last`` are one network.

Source: https://arxiv.org/abs/2106.15067
"""

from collections.abc import Sequence

from study.errors import UserError, nearest

SITES = ("skip", "branch")
PLACES = ("all", "first", "last", "alternate")


def check_site(site: str) -> None:
    """Raise ``UserError`` for an unknown merge site."""
    if site not in SITES:
        raise UserError(f"unknown merge_site {site!r}{nearest(site, SITES)}")


def blocks_chosen(setting: str, where: str, num_blocks: Sequence[int]) -> list[list[bool]]:
    """For stages of ``num_blocks`` blocks, whether each is one that ``where`` names. ``UserError`` for an unknown place."""
    if where not in PLACES:
        raise UserError(f"unknown {setting} {where!r}{nearest(where, PLACES)}")
    chosen, before = [], 0
    for count in num_blocks:
        stage = {
            "all": [True] * count,
            "first": [index == 0 for index in range(count)],
            "last": [index == count - 1 for index in range(count)],
            "alternate": [(before + index) % 2 == 0 for index in range(count)],
        }
        chosen.append(stage[where])
        before += count
    return chosen
