"""The base of all gates. A gate maps (N, C, H, W) to attention weights a in (0, 1) that broadcast against its input.

Trait ``extra_params`` in the registry: parameters of the gate, and of the carrier it brings, in the trained forms, as a
Python expression in the channels C.
"""

from torch import Tensor, nn

from study.models.attention.carrier import Carrier
from study.registry import ATTENTIONS


class Gate(nn.Module):
    """Computes a, and u, which is 0 where the last layers give zero."""

    neutral = 0.5
    """a where every last layer gives zero: 1/2 for one sigmoid, 1/4 for a product of two."""

    zero_when_published = False
    """Whether the published initialisation zeroes the last layers too."""

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The layers whose outputs enter the final sigmoids: zero there means a = ``neutral``, u = 0."""
        raise TypeError(f"{type(self).__name__} names no last layers")

    def forward(self, x: Tensor) -> Tensor:
        """Return a, broadcastable to ``x`` (N, C, H, W)."""
        raise TypeError(f"{type(self).__name__} computes no gate")

    def centred(self, x: Tensor) -> Tensor:
        """u = a / neutral - 1, which is 2a - 1 for one sigmoid."""
        u: Tensor = self(x) / self.neutral - 1
        return u

    def native(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Attention as published, x * a unless the gate says else."""
        attended: Tensor = x * self(x)
        return attended

    def as_published(self) -> None:
        """Drop what the paper does not have and only the other forms need."""

    def make_carrier(self, channels: int) -> Carrier:
        """Return what u acts on: maps of ``channels`` channels themselves, unless the gate says else."""
        return Carrier(channels)


def num_hidden(channels: int, reduction: int = 16, minimum: int = 4) -> int:
    """Width of a bottleneck: C // 16, as SE and its successors have it, with a floor for narrow networks."""
    return max(channels // reduction, minimum)


@ATTENTIONS.register("none", formula="x (no attention)", source="https://arxiv.org/abs/1512.03385", extra_params="0")
class NoAttention(nn.Identity):
    """The absence of attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()  # the identity itself takes any argument in silence
