"""https://arxiv.org/abs/2105.07576 (Wu and Johnson 2021, *Rethinking "Batch" in BatchNorm*) and 1803.05407 (SWA, 3.2).

Batch norm's running statistics lag behind the weights, and a network with multiplicative merges can collapse in
evaluation for that reason alone; so they are estimated anew first.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.errors import UserError


@contextmanager
def reestimated_batchnorm(model: nn.Module, images: Tensor, batch_size: int) -> Iterator[None]:
    """Evaluate ``model`` with batch-norm statistics estimated anew on ``images``; afterwards it is exactly as it was.

    Over fixed-order batches b of n_b images, running_mean = sum n_b mean_b / n and running_var = sum n_b var_b / n
    with var_b the batch's unbiased variance: what ``momentum=None`` gives for equal batches. The images are cut into
    ceil(n / batch_size) batches whose sizes differ by at most one, each weighted by its size, so that none is dropped
    and no short last batch counts too much. As in training, a layer sees inputs normalised by the *batch's*
    statistics; the spread of the batch means is not in the variance. Only batch-norm layers are in training mode, so
    dropout is inactive.

    ``images`` (N, C, H, W): training images as the network takes them. Inside, the model is in evaluation mode. On
    leaving, by an exception too, all buffers (``num_batches_tracked`` included), momenta and modes are restored bit
    for bit; gradients are never touched. Without batch-norm layers nothing is run. Cost: one forward an image, none
    backwards. Raises ``UserError`` for fewer than two images when there is a batch-norm layer, or a non-positive
    ``batch_size``.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if batch_size < 1:
        raise UserError(f"batch_size for batch-norm re-estimation must be positive, not {batch_size}")
    if layers and len(images) < 2:
        raise UserError(f"batch-norm re-estimation needs two training images or more, not {len(images)}")
    modes = {module: module.training for module in model.modules()}
    momenta = [layer.momentum for layer in layers]
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    try:
        model.eval()
        if layers:
            _estimate(model, layers, images, batch_size)
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
            model.eval()
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def _estimate(model: nn.Module, layers: list[_BatchNorm], images: Tensor, batch_size: int) -> None:
    for layer in layers:
        layer.reset_running_stats()  # a weight of 0 would not forget statistics that are not finite
        layer.train()
    seen = 0
    # two images a batch at least: one has no variance where maps are 1x1
    num_batches = max(1, min(math.ceil(len(images) / batch_size), len(images) // 2))
    for batch in torch.tensor_split(images, num_batches):
        seen += len(batch)
        for layer in layers:
            layer.momentum = len(batch) / seen
        model(batch)
