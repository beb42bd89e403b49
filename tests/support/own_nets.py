"""Networks of one's own, as a user writes them: what tests name as ``own_nets:gated`` and so on."""

from typing import Literal

import torch
from torch import Tensor, nn


class Gated(nn.Module):
    """A block with a product or a sum, a depthwise convolution and a norm; starts as the identity."""

    def __init__(self, channels: int, variant: str, kernel: int) -> None:
        super().__init__()
        self.variant = variant
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.a, self.b = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(channels, 2 * channels, 1)
        self.out = nn.Conv2d(2 * channels, channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.depthwise(x))
        a, b = self.a(h).relu(), self.b(h)
        return x + self.scale * self.out(a * b if self.variant == "gated" else a + b)


def gated(
    num_classes: int,
    in_channels: int,
    variant: Literal["plain", "gated"] = "plain",
    kernel: int = 3,
    width: int = 4,
    drop: float = 0.0,
    residual: bool = True,
    given: list[int] | None = None,
) -> nn.Module:
    """A stem, two blocks and a head."""
    blocks = [Gated(width, variant, kernel) for _ in range(2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(drop), nn.Linear(width, num_classes)]
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), *blocks, *head)


def shaped(image_shape: tuple[int, int, int], num_classes: int, epochs: int, needed: str) -> nn.Module:
    channels, height, width = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))


def looking(num_classes: int, in_channels: int) -> nn.Module:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(in_channels, num_classes)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.layer(x.mean((2, 3)))
            return logits if float(x.sum()) > 0 else 2 * logits

    return Looking()


def with_a_gate(num_classes: int, in_channels: int, merge: Literal["sum", "mean"] = "sum") -> nn.Module:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gate(x)

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)]
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), Attending(), *head)


def too_few(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, 3))


def named_alike(
    num_classes: int, in_channels: int, norm: Literal["instance", "none"], activation: str = "elu"
) -> nn.Module:
    layers = [nn.InstanceNorm2d(in_channels)] if norm == "instance" else []
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes)]
    return nn.Sequential(*layers, getattr(nn, activation.upper())(), *head)


def raising(num_classes: int, depth: int) -> nn.Module:
    raise RuntimeError("no such depth")


def no_module(num_classes: int) -> int:
    return num_classes


def unseeded(num_classes: int, in_channels: int) -> nn.Module:
    layer = nn.Linear(in_channels, num_classes)
    layer.weight.data = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(len(DRAWN)))
    DRAWN.append(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)


DRAWN: list[int] = []
