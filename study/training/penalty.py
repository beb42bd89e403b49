"""The Jacobian penalty: smoothness set by the training loss.

lambda / 2 times the squared Frobenius norm of the logits' Jacobian in the pixels is added to the training loss. The norm is
estimated from one random direction per image: for v uniform on the unit sphere of R^C, E[v v^T] = I / C, so
C E||v^T J||^2 = ||J||_F^2.

Source: https://arxiv.org/abs/1908.02729
"""

import torch
from torch import Tensor

from study.seeding import derive_seed


def jacobian_penalty(logits: Tensor, pixels: Tensor, directions: Tensor) -> Tensor:
    """Estimate of the batch mean of ||dz/dx||_F^2, differentiable in the weights: a scalar.

    ``logits`` (N, C) are the network's output at ``pixels`` (N, ...), which require a gradient; ``directions`` (N, C) are
    unit vectors. Units: logits squared per squared [0, 1] pixel unit. In training, batch norm couples the images of a batch:
    a pixel's effect on other images' logits is included, and does not cancel, since each image has its own direction.
    """
    (gradient,) = torch.autograd.grad((directions * logits).sum(), pixels, create_graph=True)
    return logits.shape[1] * gradient.square().sum() / len(logits)


def unit_directions(num_images: int, num_classes: int, seed: int, epoch: int, step: int) -> Tensor:
    """Per image a direction uniform on the unit sphere, by hash(seed, "penalty", epoch, step): float64 (N, C), CPU."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "penalty", epoch, step))
    drawn = torch.randn((num_images, num_classes), dtype=torch.float64, generator=generator)
    directions: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return directions
