"""https://arxiv.org/abs/1908.02729 (Hoffman et al. 2019), after double backpropagation (Drucker and LeCun 1992).

Smoothness by intervention: lambda / 2 times the squared Frobenius norm of the logits' Jacobian in the pixels is added to
the training loss. The norm is not computed but estimated, from one random direction an image: v uniform on the unit sphere
of R^C has E[v v^T] = I / C, so C E||v^T J||^2 = ||J||_F^2.
"""

import torch
from torch import Tensor

from study.seeding import derive_seed


def jacobian_penalty(logits: Tensor, pixels: Tensor, directions: Tensor) -> Tensor:
    """Estimate of the batch's mean of ||dz/dx||_F^2, differentiable in the weights: a scalar.

    ``logits`` (N, C) are the network's output at ``pixels`` (N, ...), which require a gradient; ``directions`` (N, C) are
    unit vectors. Units: logits squared by [0, 1] pixel units squared. In training batch norm ties the images of a batch
    together: what a pixel does to the other images' logits counts too, and does not cancel, for each image has a direction
    of its own.
    """
    (gradient,) = torch.autograd.grad((directions * logits).sum(), pixels, create_graph=True)
    return logits.shape[1] * gradient.square().sum() / len(logits)


def unit_directions(num_images: int, num_classes: int, seed: int, epoch: int, step: int) -> Tensor:
    """One direction an image, uniform on the unit sphere: float64 (num_images, num_classes), on the CPU.

    From hash(``seed``, "penalty", ``epoch``, ``step``): shared by all cells, and the same after a resumption.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "penalty", epoch, step))
    drawn = torch.randn((num_images, num_classes), dtype=torch.float64, generator=generator)
    directions: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return directions
