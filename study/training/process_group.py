"""Data parallelism: several processes train one network, each on a share of every batch; batch norm over all of it.

Each rank holds the whole network. Gradients are averaged over ranks before each step, so all ranks take the step that one
process would take on the whole batch. ``DistributedDataParallel`` is not used: it reorders gradients after its first step, so
sums over more than two ranks would differ in their last digits between a resumed training and an uninterrupted one. Here
gradients keep the order of the parameters. The price: they travel after the backward pass, not during it.

Source: https://arxiv.org/abs/2006.15704
"""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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

    def all_rows(self, values: Tensor) -> Tensor:
        """``values`` of all ranks, (size, ...), differentiable; exact, whatever the order in which ranks are summed."""
        others = [torch.zeros_like(values)] * self.size
        rows: Tensor = _Total.apply(torch.stack([*others[: self.rank], values, *others[self.rank + 1 :]]), self)
        return rows

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
        if self.size == 1:
            return number
        return int(self.total(torch.tensor(number if self.rank == 0 else 0, dtype=torch.int64, device=device)))


ALONE = Ranks()


class _Total(torch.autograd.Function):
    """The sum over ranks. Its gradient is that of the sum of all ranks' objectives, to any order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Total.apply(gradient.contiguous(), ctx.ranks), None


@contextmanager
def synchronised(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Meanwhile batch norm in training mode sees the images of all ranks, which must run the same passes.

    Batch norm of a share of the batch would be another network (its noise grows as shares shrink). ``nn.SyncBatchNorm`` runs
    on GPUs only and is not twice differentiable, which the Jacobian penalty needs. Cost: one small exchange per layer and
    pass, and more memory traffic than the fused kernel. By https://arxiv.org/abs/1711.07240.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)] if ranks.size > 1 else []
    for layer in layers:
        vars(layer)["forward"] = functools.partial(_forward, layer, ranks)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _forward(layer: _BatchNorm, ranks: Ranks, x: Tensor) -> Tensor:
    """The layer's forward pass; ``x`` (N, C, ...) is a share, equal in size on all ranks."""
    if not layer.training:
        return type(layer).forward(layer, x)
    # as in torch, statistics of half precision are single
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=[0, *range(2, x.dim())], correction=0)
    means, variances = ranks.all_rows(torch.stack([mean, variance])).unbind(1)
    mean = means.mean(0)
    # not a difference of squares, which cancels if a mean is large
    variance = variances.mean(0) + (means - mean).square().mean(0)
    _remember(layer, mean.detach(), variance.detach(), ranks.size * x.numel() // x.shape[1])
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -mean * scale if layer.bias is None else layer.bias - mean * scale
    across = (1, -1, *[1] * (x.dim() - 2))
    return torch.addcmul(shift.view(across), wide, scale.view(across)).to(x.dtype)


@torch.no_grad()
def _remember(layer: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics, the variance unbiased over ``count`` values a channel."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    share = 1 / int(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean.to(layer.running_mean), share)
    layer.running_var.lerp_((variance * (count / max(count - 1, 1))).to(layer.running_var), share)
