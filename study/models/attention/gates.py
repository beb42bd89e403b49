"""The base of all gates. A gate maps (N, C, H, W) to attention weights a in (0, 1) that broadcast against its input."""

from torch import Tensor, nn

from study.registry import ATTENTIONS


class Gate(nn.Module):
    """Computes a."""

    @property
    def last_layer(self) -> nn.Module:
        """The layer whose output enters the final sigmoid: zero there means a = 1/2."""
        raise TypeError(f"{type(self).__name__} names no last layer")

    def forward(self, x: Tensor) -> Tensor:
        """Return a, broadcastable to ``x`` (N, C, H, W)."""
        raise TypeError(f"{type(self).__name__} computes no gate")


@ATTENTIONS.register("none", formula="x (no attention)", source="https://arxiv.org/abs/1512.03385")
class NoAttention(nn.Identity):
    """The absence of attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()  # the identity itself takes any argument in silence
