"""What a network costs: parameters and the FLOPs of one image's forward pass (a multiply-add counts as two)."""

import torch
from torch import nn


def num_params(model: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def num_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """FLOPs of one forward pass of one image (C, H, W), counted by torch on convolutions and matrix products.

    Half of what two images cost, for a placebo that gates an image by another one refuses a batch of one.
    """
    # here, because it imports triton, and what trains is not counted before its end
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, *image_shape, device=next(model.parameters()).device))
    model.train(training)
    return int(counter.get_total_flops()) // 2
