"""Small networks whose gates, and the importance of what they gate, are known in closed form."""

import numpy as np
import torch
from torch import nn

from study.smoothness import MeasureContext

CHANNELS, CLASSES = 12, 3


class Gate(nn.Module):
    """a_c = sigmoid(bias_c + slope * mean_hw x_c)."""

    def __init__(self, bias: torch.Tensor, slope: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("bias", bias.float())
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.bias.view(1, -1, 1, 1) + self.slope * x.mean((2, 3), keepdim=True)).sigmoid()


class Attention(nn.Module):
    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


class Toy(nn.Module):
    """Gated channels, their means, and class k's logit: the sum of weight_kc * a_c * mean_hw x_c."""

    def __init__(self, bias: torch.Tensor, weight: torch.Tensor, slope: float = 0.0) -> None:
        super().__init__()
        self.attention = Attention(Gate(bias, slope))
        self.weight = nn.Parameter(weight.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x).mean((2, 3)) @ self.weight.T


def context(model: nn.Module, x: torch.Tensor, y: torch.Tensor, chunk: int = 64) -> MeasureContext:
    return MeasureContext(
        model=model.eval(), images={"test": x}, labels={"test": y}, num_classes=CLASSES,
        temperature=1.0, temperature_converged=True, seed=1, chunk=chunk,
    )  # fmt: skip


def images(num: int = 40, channels: int = CHANNELS, side: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand((num, channels, side, side), generator=generator), torch.arange(num) % CLASSES


def toy(slope: float = 0.5) -> Toy:
    generator = torch.Generator().manual_seed(6)
    bias, weight = torch.randn(CHANNELS, generator=generator), torch.randn(CLASSES, CHANNELS, generator=generator)
    return Toy(bias, weight, slope)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[:, None], -1)[:, 0]
