"""Batch norms as a training wants them: clamped, with another momentum, over parts of a batch.

Source: https://arxiv.org/abs/1502.03167
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# of torch's batch norms; one that has another was given it by its network
_MOMENTUM = 0.1


class ClampedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose shift, scale or both are constants: buffers, kept in no checkpoint, as they are part of the form."""

    def __init__(self, channels: int, *, shift: float | None = None, scale: float | None = None) -> None:
        super().__init__(channels)
        for name, value in (("weight", scale), ("bias", shift)):
            if value is not None:
                delattr(self, name)
                self.register_buffer(name, torch.full((channels,), float(value)), persistent=False)


class PartedBatchNorm2d(nn.BatchNorm2d):
    """In training, batch norm over each of ``parts`` parts of the batch, as ``nn.DataParallel`` has it on so many devices.

    Parts are those of ``torch.chunk``. The running statistics are those of the first part: the other devices' are lost there.
    """

    parts: int

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        first, *others = x.chunk(self.parts)
        alone = [functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps) for x in others]
        return torch.cat([super().forward(first), *alone])


def set_norms(model: nn.Module, *, momentum: float, parts: int) -> None:
    """Give the batch norms of ``model`` that momentum, but for those with one of their own, and these parts."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.momentum == _MOMENTUM:
                module.momentum = momentum
            # a subclass of a plug-in's own keeps its forward pass
            if parts > 1 and type(module) in (nn.BatchNorm2d, ClampedBatchNorm2d):
                module.__class__ = PartedBatchNorm2d
                vars(module)["parts"] = parts
