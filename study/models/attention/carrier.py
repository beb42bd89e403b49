"""https://arxiv.org/abs/2106.15067: what u acts on. Attention is base + moved * u, its additive twin base + sd * u.

For a gate on x both base and moved are x. Selective kernel and non-local attention weigh maps of their own and bring a
carrier of their own; through it every form exists for them too.
"""

from typing import NamedTuple

from torch import Tensor, nn


class Parts(NamedTuple):
    """``seen`` by the gate; ``base`` comes out at u = 0; ``moved`` is what u multiplies."""

    seen: Tensor
    base: Tensor
    moved: Tensor


class Carrier(nn.Module):
    """The map itself: base = moved = x. ``num_moved`` is the number of channels of ``moved``."""

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
        """What one u a channel (1, num_moved, 1, 1), the same for every image, adds to the base."""
        return parts.moved * u

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the output, from the input and the attended map ``y``."""
        return y
