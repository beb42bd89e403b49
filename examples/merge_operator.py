"""A merge operator of one's own: a sum, and as much of the product as training wants, a share a channel."""

import torch
from torch import Tensor, nn

from study.models.merges import Merge
from study.registry import MERGES


@MERGES.register("learned_product", formula="x + F + s x F", source="examples/merge_operator.py", extra_params="C")
class LearnedProduct(Merge):
    """Starts as a sum: s is 0 then."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.share = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """``x`` and ``f``: shortcut and branch, (N, C, H, W) both."""
        return x + f + self.share.view(1, -1, 1, 1) * x * f
