"""Batch norms of replicates as one: values, gradients, second derivatives and statistics of each alone, in float64."""

import copy

import pytest
import torch
from torch import nn

from study.training.folded import fold_norms
from study.training.stack import Stack

REPLICATES = 3


class Slow(nn.BatchNorm2d):
    """A batch norm of one's own."""

    def forward(self, input):
        return super().forward(input) + 1


def network(seed, norm=nn.BatchNorm2d):
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), norm(4), nn.Tanh(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3, momentum=0.3, eps=0.1),
        nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip
    made(torch.rand(2, 2, 8, 8))
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.double()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, Slow])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_stack_is_each_network_alone(norm, channels_last):
    models = [network(seed, norm) for seed in range(REPLICATES)]
    alone = [copy.deepcopy(model) for model in models]
    stack = Stack(models, channels_last=channels_last)
    generator = torch.Generator().manual_seed(7)
    pixels = torch.rand(REPLICATES, 6, 2, 8, 8, generator=generator, dtype=torch.float64).requires_grad_()

    def squares(logits, inputs):
        """A loss with the gradient in the images in it, as a penalty has."""
        (gradient,) = torch.autograd.grad(logits.square().sum(), inputs, create_graph=True)
        return logits.sin().sum() + gradient.square().sum()

    for _ in range(2):
        logits = stack(pixels)
        found = stack.gradients(squares(logits, pixels))
        for row, model in enumerate(alone):
            own = pixels[row].detach().requires_grad_()
            expected = model.train()(own)
            torch.testing.assert_close(logits[row], expected, rtol=1e-11, atol=1e-12)
            gradients = torch.autograd.grad(squares(expected, own), list(model.parameters()))
            for whole, gradient in zip(found, gradients, strict=True):
                torch.testing.assert_close(whole[row], gradient, rtol=1e-9, atol=1e-10)
    stack.hand_back()
    for model, one in zip(models, alone, strict=True):
        for (name, value), expected in zip(model.named_buffers(), one.buffers(), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12, msg=name)
    stack.train(False)
    for row, model in enumerate(alone):
        with torch.no_grad():
            torch.testing.assert_close(stack(pixels)[row], model.eval()(pixels[row]), rtol=1e-11, atol=1e-12)


def test_only_torchs_own_norms_with_weights_and_statistics_are_folded():
    norms = [
        nn.BatchNorm2d(2), Slow(2), nn.BatchNorm2d(2, affine=False), nn.BatchNorm2d(2, track_running_stats=False),
        nn.BatchNorm2d(2, momentum=None),
    ]  # fmt: skip
    before = [type(norm) for norm in norms]
    fold_norms(nn.Sequential(*norms))
    assert [type(norm) is kind for norm, kind in zip(norms, before, strict=True)] == [False, True, True, True, True]
    assert isinstance(norms[0], nn.BatchNorm2d)
