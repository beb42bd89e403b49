"""The base of all gates, and what they act on.

A gate maps (N, C, H, W) to attention weights a in (0, 1) that broadcast against its input. Trait ``extra_params`` in the
registry: parameters of the gate, and of its carrier, in the trained forms, as a Python expression in the channels C.

Source: https://arxiv.org/abs/2106.15067
"""

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from study.registry import ATTENTIONS


class Parts(NamedTuple):
    """``seen`` by the gate; ``base`` comes out at u = 0; ``moved`` is what u multiplies."""

    seen: Tensor
    base: Tensor
    moved: Tensor


class Carrier(nn.Module):
    """What u acts on: attention is base + moved * u, its additive twin base + sd * u. Here base = moved = x.

    Selective kernel and non-local attention weigh maps of their own and bring a carrier of their own, so every form exists for
    them too. ``num_moved`` is the number of channels of ``moved``.
    """

    def __init__(self, num_moved: int) -> None:
        super().__init__()
        self.num_moved = num_moved

    def split(self, x: Tensor) -> Parts:
        """Return the parts of ``x`` (N, C, H, W)."""
        return Parts(seen=x, base=x, moved=x)

    def weigh(self, parts: Parts, u: Tensor) -> Tensor:
        """What multiplication by u adds to the base."""
        return parts.moved * u

    def spread(self, parts: Parts, u: Tensor) -> Tensor:
        """What addition of u adds to the base, in units of the standard deviation of ``moved``."""
        return u

    def rescale(self, parts: Parts, u: Tensor) -> Tensor:
        """What one u per channel (1, num_moved, 1, 1), the same for every image, adds to the base."""
        return parts.moved * u

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the output, from the input and the attended map ``y``."""
        return y


class Gate(nn.Module):
    """Computes a, and u, which is 0 where the last layers give zero."""

    neutral = 0.5
    """a where every last layer gives zero: 1/2 for one sigmoid, 1/4 for a product of two."""

    last: ClassVar[tuple[str, ...]] = ()
    """Names of the layers whose outputs enter the final sigmoids: zero there means a = ``neutral``, u = 0."""

    zero_when_published = False
    """Whether the published initialisation zeroes the last layers too."""

    @property
    def last_layers(self) -> tuple[nn.Module, ...]:
        """The layers named ``last``."""
        if not self.last:
            raise TypeError(f"{type(self).__name__} names no last layers")
        try:
            return tuple(self.get_submodule(name) for name in self.last)
        except AttributeError as error:  # from a property it would read as one that is not there
            raise TypeError(f"{type(self).__name__} names last layers that it does not have: {error}") from None

    def forward(self, x: Tensor) -> Tensor:
        """Return a, broadcastable to ``x`` (N, C, H, W)."""
        raise TypeError(f"{type(self).__name__} computes no gate")

    def centred(self, x: Tensor) -> Tensor:
        """u = a / neutral - 1, which is 2a - 1 for one sigmoid."""
        u: Tensor = self(x) / self.neutral - 1
        return u

    def native(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Attention as published: x * a, unless the gate defines another."""
        attended: Tensor = x * self(x)
        return attended

    def as_published(self) -> None:
        """Drop what the paper does not have and only the other forms need."""

    def make_carrier(self, channels: int) -> Carrier:
        """Return what u acts on: maps of ``channels`` channels themselves, unless the gate brings its own."""
        return Carrier(channels)


def num_hidden(channels: int, reduction: int = 16, minimum: int = 4) -> int:
    """Width of a bottleneck: C // 16, as in SE and its successors, with a floor for narrow networks."""
    return max(channels // reduction, minimum)


@ATTENTIONS.register("none", formula="x (no attention)", source="https://arxiv.org/abs/1512.03385", extra_params="0")
class NoAttention(nn.Identity):
    """The absence of attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()  # the identity itself takes any argument in silence
