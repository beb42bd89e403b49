"""Batch norms as a training wants them: clamped, with another momentum, over parts of a batch; and other norms in their place.

A norm's scale and shift stay, learned or constant, whatever it normalises by: networks that differ in their norm alone have
equal parameters, and an operator whose formula clamps a shift, or reads a scale, keeps to it.

Source: https://arxiv.org/abs/1502.03167 (batch), https://arxiv.org/abs/1803.08494 (group, layer)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from study.errors import UserError

# of torch's batch norms; one that has another was given it by its network
_MOMENTUM = 0.1
# of a group, at least: the paper's other choice beside 32 groups
_GROUP = 16


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


class RunningMoments(nn.BatchNorm2d):
    """Running mean and variance of a map that is not normalised by them: of no norm's kind."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)


class ScaleShift(nn.Module):
    """A norm's learned map without its norm: x weight + bias, by channel of (N, C, H, W)."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift."""
        x = x if self.weight is None else x * self.weight.view(1, -1, 1, 1)
        return x if self.bias is None else x + self.bias.view(1, -1, 1, 1)


def replace_norms(model: nn.Module, norm: str) -> None:
    """Put norms of kind ``norm`` in the place of the batch norms of ``model``, with their scales and shifts.

    ``group``: the most groups of equal size of 16 channels or more; ``layer``: all channels and positions of an image;
    ``none``: nothing is normalised. Raises ``UserError`` where there is no batch norm, or one of a class of its own.
    """
    made: dict[nn.Module, nn.Module] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if type(module) in (nn.BatchNorm2d, ClampedBatchNorm2d):
            if module not in made:
                made[module] = _other_norm(norm, module)
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, made[module])
        elif isinstance(module, _BatchNorm) and not isinstance(module, RunningMoments):
            raise UserError(
                f"setting 'norm' = {norm!r}: {path!r} is a {type(module).__name__}, which is no plain batch norm"
            )
    if not made:
        raise UserError(f"setting 'norm' = {norm!r}: the network has no batch norm in whose place it could stand")


def _other_norm(norm: str, replaced: nn.BatchNorm2d) -> nn.Module:
    channels = replaced.num_features
    groups = max(num for num in range(1, max(1, channels // _GROUP) + 1) if channels % num == 0)
    made: nn.Module = ScaleShift(channels)
    if norm != "none":
        made = nn.GroupNorm(groups if norm == "group" else 1, channels, eps=replaced.eps)
    for name in ("weight", "bias"):
        value = getattr(replaced, name)
        if value is None or isinstance(value, nn.Parameter):
            setattr(made, name, value)
        else:
            # a constant of the form, as in ``ClampedBatchNorm2d``
            delattr(made, name)
            made.register_buffer(name, value, persistent=False)
    return made


def set_norms(model: nn.Module, *, momentum: float, parts: int) -> None:
    """Give the batch norms of ``model`` that momentum, but for those with one of their own, and these parts."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.momentum == _MOMENTUM:
                module.momentum = momentum
            # a subclass of a plug-in's own keeps its forward pass
            if parts > 1 and type(module) in (nn.BatchNorm2d, ClampedBatchNorm2d, RunningMoments):
                module.__class__ = PartedBatchNorm2d
                vars(module)["parts"] = parts
