"""https://arxiv.org/abs/2006.15704 (Li et al. 2020, PyTorch Distributed): processes that train one network, a share each.

Every rank holds the whole network and sees its rows of every batch; gradients are averaged over ranks before each step, so
that all take the step that one process would take on the whole batch. ``DistributedDataParallel`` is not used: it lays
gradients out anew after its first step, and sums of more than two ranks would then differ in their last digits between a
resumed training and one that was not broken off. Here they lie in the order of the parameters. The price is that gradients
travel after the backward pass and not during it: once a step, four bytes a parameter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class RanksLost(RuntimeError):
    """Another rank is gone, or cannot be reached: not this one's fault."""


@dataclass(frozen=True)
class Ranks:
    """This process is ``rank`` (from 0) of ``size``; more than one meet in torch's default process group."""

    rank: int = 0
    size: int = 1

    def rows(self, batch: int) -> slice:
        """This rank's share of ``batch`` images, which ``size`` divides."""
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks, in place. Every rank must come here. Raises ``RanksLost``."""
        if self.size > 1:
            try:
                dist.all_reduce(values)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise RanksLost(f"rank {self.rank} lost the others: {error}") from error
        return values

    def differentiable_total(self, values: Tensor) -> Tensor:
        """The sum over ranks; gradients are those of the sum of all ranks' objectives, as often as they are asked for."""
        total: Tensor = _Total.apply(values, self)
        return total

    def all_rows(self, values: Tensor) -> Tensor:
        """``values`` of all ranks, (size, ...), differentiable; exact, whatever the order in which ranks are summed."""
        others = [torch.zeros_like(values)] * self.size
        return self.differentiable_total(torch.stack([*others[: self.rank], values, *others[self.rank + 1 :]]))

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Of all ranks, in place; a parameter that has no gradient has none in any rank."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients])).div_(self.size)
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def as_first(self, number: int, device: torch.device) -> int:
        """The first rank's ``number``, in all ranks."""
        return int(self.total(torch.tensor(number if self.rank == 0 else 0, dtype=torch.int64, device=device)))


ALONE = Ranks()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.differentiable_total(gradient.contiguous()), None
