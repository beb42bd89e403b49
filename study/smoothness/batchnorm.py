"""Batch norm with running statistics estimated anew.

Running statistics lag behind the weights, and a network with multiplicative merges can collapse in evaluation for that alone.

Source: https://arxiv.org/abs/2105.07576
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.errors import UserError
from study.smoothness.memory import Images


@contextmanager
def reestimated_batchnorm(model: nn.Module, images: Images, batch_size: int) -> Iterator[None]:
    """Evaluate ``model`` with batch-norm statistics estimated anew on ``images``; afterwards it is exactly as it was.

    Over fixed-order batches b of n_b images, running_mean = sum n_b mean_b / n and running_var = sum n_b var_b / n with var_b
    the batch's unbiased variance: what ``momentum=None`` gives for equal batches. Images are cut into ceil(n / batch_size)
    batches whose sizes differ by at most one, weighted by size. As in training, a layer sees inputs normalised by the
    *batch's* statistics; the spread of batch means is not in the variance. Other layers stay in evaluation mode (dropout too).

    ``images`` (N, C, H, W): training images as the network takes them. Inside, the model is in evaluation mode. On leaving,
    also by an exception, all buffers (``num_batches_tracked`` included), momenta and modes are restored bit for bit; gradients
    are not touched. Cost: one forward pass per image if there is a batch-norm layer. Raises ``UserError`` for fewer than two
    images when there is such a layer, or a non-positive ``batch_size``.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if batch_size < 1:
        raise UserError(f"batch_size for batch-norm re-estimation must be positive, not {batch_size}")
    if layers and len(images) < 2:
        raise UserError(f"batch-norm re-estimation needs two training images or more, not {len(images)}")
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    try:
        model.eval()
        if layers:
            _estimate(model, layers, images, batch_size)
            model.eval()
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def _estimate(model: nn.Module, layers: list[_BatchNorm], images: Images, batch_size: int) -> None:
    momenta, seen = [layer.momentum for layer in layers], 0
    for layer in layers:
        layer.reset_running_stats()  # a weight of 0 would not forget statistics that are not finite
        layer.train()
    # at least two images per batch: one has no variance where maps are 1x1
    num_batches = max(1, min(math.ceil(len(images) / batch_size), len(images) // 2))
    try:
        for rows in torch.tensor_split(torch.arange(len(images)), num_batches):
            batch = images[int(rows[0]) : int(rows[-1]) + 1]
            seen += len(batch)
            for layer in layers:
                layer.momentum = len(batch) / seen
            model(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
