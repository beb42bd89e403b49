"""Weights between ``imagenet_resnet`` and torchvision's ResNets.

Key by key: ours ``conv``, ``bn``, ``stages.0``, ``shortcut``, ``head`` are theirs ``conv1``, ``bn1``, ``layer1``,
``downsample``, ``fc``; within a block the names agree. Only ours has ``normalize``, the mean and deviation of the dataset:
torchvision's weights were trained on pixels normalised by (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from study.errors import UserError, nearest

_OURS_TO_THEIRS = {
    "conv.": "conv1.",
    "bn.": "bn1.",
    "head.": "fc.",
    **{f"stages.{stage}.": f"layer{stage + 1}." for stage in range(4)},
}


def torchvision_key(name: str) -> str:
    """torchvision's name for our parameter or buffer ``name``, which is none of ``normalize``."""
    for ours, theirs in _OURS_TO_THEIRS.items():
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
            break
    return name.replace(".shortcut.", ".downsample.")


def torchvision_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights and statistics of an ``imagenet_resnet`` under torchvision's names: same tensors, not copies."""
    ours = model.state_dict()
    return {torchvision_key(name): value for name, value in ours.items() if not name.startswith("normalize.")}


def load_torchvision(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copy torchvision's weights and statistics into an ``imagenet_resnet`` of the same depth, width and classes, in place.

    Strict: raises ``UserError`` naming the first key that one of them lacks, or whose shape differs, and copies nothing.
    """
    ours = torchvision_state_dict(model)
    for name in [*state_dict, *ours]:
        if name not in ours or name not in state_dict:
            where, known = ("network", ours) if name not in ours else ("state_dict", state_dict)
            raise UserError(f"{name!r} is not in the {where}{nearest(name, known)}")
        if state_dict[name].shape != ours[name].shape:
            shapes = tuple(state_dict[name].shape), tuple(ours[name].shape)
            raise UserError(f"{name!r} has shape {shapes[0]} in the state_dict, {shapes[1]} in the network")
    with torch.no_grad():
        for name, value in ours.items():
            value.copy_(state_dict[name])
