"""https://arxiv.org/abs/1711.07240 (Peng et al. 2018, cross-GPU batch normalisation): batch norm over all ranks' images.

Each rank sees a share of the batch, and batch norm of a share is another network than batch norm of the whole (its noise
grows as shares shrink). So a layer's means and variances are those of all ranks together, and a training does not depend on
the number of its ranks but for last digits. ``torch.nn.SyncBatchNorm`` runs on GPUs alone and cannot be differentiated
twice, which the Jacobian penalty needs; this is made of operations that any device and any order of derivative have. It costs
one small exchange a layer and pass, and more memory traffic than the fused one.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.training.process_group import Ranks


@contextmanager
def synchronised(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """In training mode, batch norm sees the images of all ranks; every rank must run the same passes inside.

    Outside, and in evaluation, layers are what they were, so that one rank can evaluate and measure by itself.
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
    """As the layer's own; ``x`` (N, C, ...) is a share, equal in size on all ranks."""
    if not layer.training:
        return type(layer).forward(layer, x)
    # of half precision, as torch has it: statistics are single
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=[0, *range(2, x.dim())], correction=0)
    means, variances = ranks.all_rows(torch.stack([mean, variance])).unbind(1)
    mean = means.mean(0)
    # not a difference of squares, which cancels where a mean is large
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
