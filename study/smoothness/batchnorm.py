"""Running statistics (batch norm's, and those of modules like it) estimated anew.

They lag behind the weights, and a network with multiplicative merges can collapse in evaluation for that alone.

Source: https://arxiv.org/abs/2105.07576
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from study.errors import UserError
from study.smoothness.context import exact_float32
from study.smoothness.memory import Images
from study.smoothness.untouched import untouched

# Images of the pass that shows which modules take statistics.
_FEW = 8


@runtime_checkable
class RunningStatistics(Protocol):
    """A module that is re-estimated: batch norm, instance norm that tracks, or one of a user's own.

    In its own training mode a forward pass moves its floating-point buffers by the share ``momentum`` from what they were to
    what the batch gives; ``reset_running_stats`` makes them what they are before any batch.
    """

    momentum: float | None

    def reset_running_stats(self) -> None:
        """Forget all batches."""


@contextmanager
def reestimated_batchnorm(
    model: nn.Module, images: Images, batch_size: int, known: Mapping[str, Tensor] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Evaluate ``model`` with running statistics estimated anew on ``images``; afterwards it is exactly as it was.

    Over fixed-order batches b of n_b images, running_mean = sum n_b mean_b / n and running_var = sum n_b var_b / n with var_b
    the batch's unbiased variance: what ``momentum=None`` gives for equal batches. Images are cut into ceil(n / batch_size)
    batches whose sizes differ by at most one, weighted by size. As in training, a layer sees inputs normalised by the
    *batch's* statistics; the spread of batch means is not in the variance. Other layers stay in evaluation mode (dropout too).

    So it is for all modules that keep to ``RunningStatistics``. One that does not, or that takes none in its own training mode
    (frozen, or gated by another module's mode), keeps what training left in it.

    Gives a copy of what was estimated, by the buffers' names; of a network without such a layer nothing. As ``known``, for the
    same weights, images and batch size, it saves the passes.

    ``images`` (N, C, H, W): training images as the network takes them. Inside, the model is in evaluation mode. On leaving,
    also by an exception, it is as it was (``untouched``), momenta included. Arithmetic is float32, without TF32. Cost: one
    forward pass per image if there is a layer to estimate. Raises ``UserError`` for fewer than two images when there is such a
    layer, or a non-positive ``batch_size``.
    """
    layers = [module for module in model.modules() if _statistics(module)]
    if batch_size < 1:
        raise UserError(f"batch_size for batch-norm re-estimation must be positive, not {batch_size}")
    if layers and len(images) < 2:
        raise UserError(f"batch-norm re-estimation needs two training images or more, not {len(images)}")
    with untouched(model):
        model.eval()
        found = dict(known or {})
        with exact_float32(), torch.no_grad():
            for name, value in found.items():
                model.get_buffer(name).copy_(value)
            if known is None and layers and (taking := _responding(model, layers, images[:_FEW])):
                _estimate(model, taking, images, batch_size)
                estimated = {id(buffer) for layer in taking for buffer in layer.buffers(recurse=False)}
                found = {name: value.clone() for name, value in model.named_buffers() if id(value) in estimated}
        yield found


def not_reestimated(model: nn.Module, images: Tensor, others: Tensor) -> list[str]:
    """Names of the buffers that training sets by its images and re-estimation does not; both of two images or more.

    Counters and what depends on weights alone (spectral norm's vectors) are no such buffers. The model is left as found, a
    copy of it is run in training mode. Raises what that raises.
    """

    def after(batch: Tensor, *, training: bool) -> dict[str, Tensor]:
        trained = copy.deepcopy(model).train(training)
        if not training:
            with reestimated_batchnorm(trained, batch, len(batch)):
                return {name: buffer.clone() for name, buffer in trained.named_buffers()}
        trained(batch)
        return dict(trained.named_buffers())

    def differing(*, training: bool) -> set[str]:
        first, second = (after(batch, training=training) for batch in (images, others))
        return {name for name, buffer in first.items() if not torch.equal(buffer, second[name])}

    devices = [images.device] if images.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        return sorted(differing(training=True) - differing(training=False))


def _statistics(module: nn.Module) -> list[Tensor]:
    """The running statistics of a module that keeps to the protocol; none of one that tracks none."""
    if not isinstance(module, RunningStatistics):
        return []
    return [buffer for buffer in module.buffers(recurse=False) if buffer.is_floating_point()]


def _responding(model: nn.Module, layers: list[nn.Module], images: Tensor) -> list[nn.Module]:
    """Those of ``layers`` that take statistics of a pass in their own training mode; the others keep what they had."""
    kept = [[statistic.clone() for statistic in _statistics(layer)] for layer in layers]
    with _taking(layers):
        fresh = [[statistic.clone() for statistic in _statistics(layer)] for layer in layers]
        _weigh(layers, 1.0)
        model(images)
    chosen = []
    for layer, before, reset in zip(layers, kept, fresh, strict=True):
        if any(not torch.equal(new, old) for new, old in zip(_statistics(layer), reset, strict=True)):
            chosen.append(layer)
            continue
        for statistic, value in zip(_statistics(layer), before, strict=True):
            statistic.copy_(value)
    return chosen


def _estimate(model: nn.Module, layers: list[nn.Module], images: Images, batch_size: int) -> None:
    # at least two images per batch: one has no variance where maps are 1x1
    num_batches, seen = max(1, min(math.ceil(len(images) / batch_size), len(images) // 2)), 0
    with _taking(layers):
        for rows in torch.tensor_split(torch.arange(len(images)), num_batches):
            batch = images[int(rows[0]) : int(rows[-1]) + 1]
            seen += len(batch)
            _weigh(layers, len(batch) / seen)
            model(batch)


@contextmanager
def _taking(layers: list[nn.Module]) -> Iterator[None]:
    """Meanwhile ``layers`` are in training mode, their statistics reset: a weight of 0 would not forget what is not finite."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()  # type: ignore[operator]
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.eval()
            layer.momentum = momentum


def _weigh(layers: list[nn.Module], share: float) -> None:
    for layer in layers:
        layer.momentum = share  # type: ignore[assignment]
