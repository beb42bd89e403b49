"""Merges without products.

Source: https://arxiv.org/abs/1512.03385
"""

import torch
from torch import Tensor, nn

from study.models.merges.base import RESNET, Merge
from study.registry import MERGES


@MERGES.register("add", formula="x + F", source=RESNET, extra_params="0")
@MERGES.register(
    "add_alias", formula="x + F (the A/A control: the same code, its own search)", source=RESNET, extra_params="0"
)
class Add(Merge):
    """x + F, the residual connection of He et al. 2015."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + F."""
        return x + f


@MERGES.register("none", formula="F", source=RESNET, extra_params="0")
class NoSkip(Merge):
    """F alone: no skip connection. It is known to lose at depth, so it shows that a study can see a difference."""

    uses_shortcut = False

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return F."""
        return f


@MERGES.register("max", formula="max(x, F)", source="https://arxiv.org/abs/1302.4389", extra_params="0")
class Maximum(Merge):
    """max(x, F) elementwise: maxout (Goodfellow et al. 2013) over the two paths. Not linear, and no product."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return max(x, F)."""
        return torch.maximum(x, f)


@MERGES.register("concat", formula="W [x, F]", source="https://arxiv.org/abs/1608.06993", extra_params="2 * C**2")
class Concatenate(Merge):
    """W [x, F]: channels side by side as in DenseNet, brought back to C by a 1x1 convolution without bias (2 C^2).

    Initialisation: W normal with variance 2 / C (fan-out), as all convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.projection = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return W [x, F]."""
        projected: Tensor = self.projection(torch.cat([x, f], 1))
        return projected
