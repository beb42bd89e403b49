"""Images in float64 where a dataset's split would stand, for trainings that are compared to the last bits."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclasses.dataclass
class Exact:
    """Pixels (N, C, 8, 8) and labels of four classes."""

    pixels: Tensor
    labels: Tensor

    @classmethod
    def drawn(cls, seed: int, num: int, channels: int) -> "Exact":
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.rand((num, channels, 8, 8), dtype=torch.float64, generator=generator)
        return cls(pixels, torch.arange(num) % 4)

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(
        self, order: Tensor, size: int, augment: str, seed: int, rows: slice = slice(None), *, short: bool = False
    ) -> Batches:
        for index in order.split(size):
            yield self.pixels[index], self.labels[index]

    def batches(self, size: int) -> Batches:
        yield self.pixels, self.labels
