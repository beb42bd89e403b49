"""A network of one's own: a callable whose keywords are settings, and so may be factors of a study."""

from typing import Literal

from torch import Tensor, nn


class Block(nn.Module):
    """A depthwise convolution, then two maps of it: multiplied (``gated``) or added (``sum``)."""

    def __init__(self, channels: int, variant: str) -> None:
        super().__init__()
        self.variant = variant
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.one, self.other = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(channels, 2 * channels, 1)
        self.out = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        h = self.norm(self.depthwise(x))
        one, other = self.one(h).relu(), self.other(h)
        return x + self.out(one * other if self.variant == "gated" else one + other)


def net(num_classes: int, in_channels: int, variant: Literal["sum", "gated"] = "sum", width: int = 16) -> nn.Module:
    """A stem, three blocks, a head. The study gives classes and channels; ``variant`` and ``width`` are its settings."""
    stem = nn.Conv2d(in_channels, width, 3, padding=1)
    blocks = [Block(width, variant) for _ in range(3)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
