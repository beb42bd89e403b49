"""Batch norm of replicates that train as one: that of one network with the channels of all of them.

``vmap``'s own rule multiplies by the weights, adds the biases and sums their gradients apart, which takes as long as the rest.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def fold_norms(network: nn.Module) -> None:
    """Have the batch norms of ``network``, which is called under ``vmap`` alone, train as one of all replicates' channels.

    Others than torch's own, and those without weights or running statistics, stay as they are.
    """
    for module in network.modules():
        if (
            type(module) is nn.BatchNorm2d
            and module.affine
            and module.track_running_stats
            and module.momentum is not None
        ):
            module.__class__ = _FoldedNorm


class _FoldedNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        normalised: Tensor = _Folded.apply(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.momentum, self.eps
        )
        return normalised


class _Folded(torch.autograd.Function):
    """``functional.batch_norm`` in training. Only its rule is ever used: the statistics are buffers of all replicates."""

    @staticmethod
    def forward(
        x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, momentum: float, eps: float
    ) -> Tensor:
        return functional.batch_norm(x, mean, var, weight, bias, True, momentum, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, *values: Any) -> tuple[Tensor, int]:
        """Channels (N, R * C, H, W) of all replicates, their gradients by autograd, statistics updated in place."""
        (mean, var, weight, bias), (momentum, eps) = values[:4], values[4:]
        # a replicate's channels beside each other, as a convolution of R groups gives them: no copy
        x = x.movedim(in_dims[0], 1)
        # views, which are updated
        statistics = [value.movedim(at, 0).view(-1) for value, at in zip((mean, var), in_dims[1:3], strict=True)]
        weights = [value.movedim(at, 0).flatten() for value, at in zip((weight, bias), in_dims[3:5], strict=True)]
        out = functional.batch_norm(x.flatten(1, 2), *statistics, *weights, True, momentum, eps)  # type: ignore[call-arg]
        return torch.unflatten(out, 1, x.shape[1:3]), 1
