"""What a training's loss is asked for: an image's label, smoothed over the classes, or that of two images mixed.

Mixup: in each step image p of a batch, in the epoch's order, is mixed with image p - 1: share lambda of its own pixels and
label, 1 - lambda of the other's. One lambda a step, from Beta(alpha, alpha) by hash(seed, "mixup", epoch). Images, labels and
logits may have replicates in front; shares and smoothings then have one value a replicate.

Source: https://arxiv.org/abs/1710.09412 (mixup), https://arxiv.org/abs/1512.00567 (label smoothing)
"""

import numpy as np
import torch
from torch import Tensor

from study.config import TrialConfig
from study.seeding import derive_seed


def mixup_shares(config: TrialConfig, epoch: int, num_steps: int) -> list[float]:
    """Each step's lambda; 1 without mixup."""
    if not config.mixup:
        return [1.0] * num_steps
    generator = np.random.default_rng(derive_seed(config.seed, "mixup", epoch))
    shares: list[float] = generator.beta(config.mixup, config.mixup, num_steps).tolist()
    return shares


def mixed(values: Tensor, share: Tensor) -> Tensor:
    """Each row of ``values`` ((R,) N, ...) mixed with the one before it; ``share`` () or (R,) is its own part."""
    weight = share.to(values).view(*share.shape, *[1] * (values.dim() - share.dim()))
    return torch.lerp(values.roll(1, share.dim()), values, weight)


def soft_targets(labels: Tensor, logits: Tensor, smoothing: Tensor | None, share: Tensor | None) -> Tensor:
    """Probabilities like ``logits`` ((R,) N, K) for ``functional.cross_entropy``; ``labels`` as they are if neither is given.

    ``smoothing`` () or (R,): that part of each label goes to all K classes alike.
    """
    if smoothing is None and share is None:
        return labels
    num_classes = logits.shape[-1]
    targets = (labels.unsqueeze(-1) == torch.arange(num_classes, device=labels.device)).to(logits.dtype)
    if share is not None:
        targets = mixed(targets, share)
    if smoothing is not None:
        part = smoothing.to(targets).view(*smoothing.shape, 1, 1)
        targets = targets * (1 - part) + part / num_classes
    return targets


def hits(logits: Tensor, labels: Tensor, share: Tensor | None) -> Tensor:
    """Number of correct images, () or (R,); a mixed image counts by the shares of its two labels."""
    chosen = logits.detach().argmax(-1)
    correct = chosen == labels
    if share is not None:
        other = (chosen == labels.roll(1, share.dim())).to(logits.dtype)
        correct = torch.lerp(other, correct.to(logits.dtype), share.to(logits).unsqueeze(-1))
    return correct.sum(-1)
