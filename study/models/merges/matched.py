"""``add_matched_<operator>``: addition with as many parameters as the operator.

One for each operator with parameters of its own, but for the authors' rows, made from the registry. ``study/models/stages.py``
finds hidden widths of F with which the network holds as many parameters. Where an operator costs less than half a hidden
channel per block (a batch norm, a scalar), most blocks stay as they are, and a network too small to owe half a channel in all
is ``add`` itself: the match is to half a hidden channel, not to a parameter. A network in which the operator costs nothing,
since its norms stand in for the block's, is ``add`` too.

Source: https://arxiv.org/abs/1605.07146
"""

import torch
from torch import Tensor

from study.models.cost import num_params
from study.models.merges.base import Merge
from study.registry import MERGES

WIDE_RESNET = "https://arxiv.org/abs/1605.07146"
# Where a cost is put into words, the first stage of the published CIFAR networks: a hidden channel of a basic block.
_CHANNELS = 16
_HIDDEN_CHANNEL = 18 * _CHANNELS + 2


class MatchedAdd(Merge):
    """x + F. At the branch x is the hidden map, wider than F: its first C channels are added."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + F for ``x`` (N, C or more, H, W) and ``f`` (N, C, H, W)."""
        return x[:, : f.shape[1]] + f


def register_matched() -> None:
    """Register ``add_matched_<operator>`` for every operator so far that holds parameters, but for the authors' rows.

    Trait ``matches``: the operator's name.
    """
    for entry in [entry for entry in MERGES if "row" not in entry.traits]:
        with torch.device("meta"):
            cost = num_params(entry.build(_CHANNELS))
        if cost:
            few = ": under half a hidden channel a block, so in few or none" if cost < _HIDDEN_CHANNEL / 2 else ""
            MERGES.register(
                f"add_matched_{entry.name}",
                formula=f"x + F, F's hidden width widened to the parameters of {entry.name}{few}",
                source=WIDE_RESNET,
                extra_params=f"as {entry.name}",
                matches=entry.name,
            )(MatchedAdd)
