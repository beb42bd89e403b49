"""https://arxiv.org/abs/2106.15067: a learned strength for gates that have no last layer to zero.

a = sigmoid(alpha * l(x)), where the published gate is sigmoid(l(x)). alpha is one scalar, 0 at the start of the twins, so
that u = 0 there, and 1 where the gate starts as published. ``native`` has none: it is the published gate, unchanged.
"""

import torch
from torch import Tensor, nn

from study.models.attention.gates import Gate


class Strength(nn.Module):
    """alpha * logit, one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, logit: Tensor) -> Tensor:
        """Return alpha * ``logit``."""
        return self.alpha * logit


class StrengthGate(Gate):
    """Base of the gates whose logit has no layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.strength: nn.Module = Strength()

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The strength."""
        return (self.strength,)

    def as_published(self) -> None:
        """Drop the strength."""
        self.strength = nn.Identity()
