"""Toy networks and contexts that the smoothness tests share."""

import copy

import torch
from torch import nn

from study.smoothness import MeasureContext, measure, parse_settings

# every statistic at a size for tests; those without an entry are small as they are
SMALL = {
    "adaptive_sharpness": {
        "num_samples": 10, "split": "test", "rhos": [0.01], "num_steps": 3, "average_rhos": [0.1], "num_draws": 3,
    },
    "attention_importance": {"num_samples": 10, "num_halves": 5, "num_shuffles": 10},
    "attention_shapley": {"num_samples": 10, "num_orders": 4},
    "decision_regions": {"num_planes": 2, "num_points": 5},
    "frequency": {"num_pairs": 20, "num_steps": 8, "above": [1, 2]},
    "hessian": {"num_samples": 10, "split": "test", "num_probes": 2, "num_steps": 3, "max_steps": 4},
    "input_curvature": {"num_samples": 10, "steps": [0.5]},
    "input_jacobian": {"num_samples": 20},
    "linear_regions": {"num_pairs": 6, "num_samples": 6, "num_steps": 4, "sigmas": [16]},
    "local_lipschitz": {"num_samples": 10, "max_iterations": 20},
    "loss_slices": {"num_samples": 10, "split": "test", "num_directions": 2, "num_points": 3, "num_square": 3},
    "noise_accuracy": {"num_samples": 20, "sigmas": [16, 64], "num_draws": 2},
    "noise_stability": {"num_samples": 20, "sigmas": [4, 16], "num_draws": 2},
    "path": {"num_pairs": 20, "num_steps": 8},
    "path_picture": {"num_pairs": 3, "num_steps": 4},
}  # fmt: skip


class Fn(nn.Module):
    """A function of a batch as a network; K is the number of its outputs."""

    def __init__(self, fn, num_classes):
        super().__init__()
        self.fn, self.num_classes = fn, num_classes

    def forward(self, x):
        return self.fn(x)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def fn_context(model, x, y=None, **kwargs) -> MeasureContext:
    """The context of an ``Fn``."""
    y = torch.arange(len(x)) % model.num_classes if y is None else y
    values = {"temperature": 1.0, "temperature_converged": True, "seed": 5, "chunk": 64} | kwargs
    return MeasureContext(
        model=model.eval(), images={"test": x}, labels={"test": y}, num_classes=model.num_classes, **values
    )


def run(name, ctx, **settings):
    return measure(name, parse_settings(name, settings), ctx)


def drawn(net: nn.Module) -> nn.Module:
    """The network with its weights drawn."""
    generator = gen(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net


def conv_net(num_classes=3) -> nn.Module:
    """A convolutional network with batch norm and dropout, its weights drawn."""
    return drawn(nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes),
    ))  # fmt: skip


class Attention(nn.Module):
    """A gate a channel, from the channels' means."""

    def __init__(self, channels):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, channels), nn.Sigmoid(),
            nn.Unflatten(1, (channels, 1, 1)),
        )  # fmt: skip

    def forward(self, x):
        return x * self.gate(x)


def gated_net() -> nn.Module:
    """A small network with batch norm, ReLUs, attention and three classes: every statistic has its say of it."""
    return drawn(nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), Attention(6), nn.Conv2d(6, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )).eval()  # fmt: skip


def conv_context(model, x, y=None, **kwargs) -> MeasureContext:
    """The context of a ``conv_net`` of three classes."""
    y = torch.arange(len(x)) % 3 if y is None else y
    values = {"temperature": 1.5, "temperature_converged": True, "seed": 5, "num_classes": 3} | kwargs
    return MeasureContext(model=model, images={"test": x}, labels={"test": y}, **values)


def images(n=30, seed=0):
    return torch.rand(n, 1, 7, 7, generator=gen(seed))


def snapshot(net: nn.Module) -> tuple:
    """All that measuring must leave alone."""
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    flags = [p.requires_grad for p in net.parameters()]
    modes = [m.training for m in net.modules()]
    momenta = [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    return copy.deepcopy(net.state_dict()), grads, flags, modes, momenta, hooks


def assert_same(a: tuple, b: tuple) -> None:
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    assert all((g is None and h is None) or torch.equal(g, h) for g, h in zip(a[1], b[1], strict=True))
    assert a[2:] == b[2:]
