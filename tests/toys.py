"""Toy networks and contexts that the smoothness tests share."""

import torch
from torch import nn

from study.smoothness import MeasureContext, measure, parse_settings


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


def conv_net(num_classes=3) -> nn.Module:
    """A convolutional network with batch norm and dropout, its weights drawn."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes),
    )  # fmt: skip
    generator = gen(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net


def conv_context(model, x, y=None, **kwargs) -> MeasureContext:
    """The context of a ``conv_net`` of three classes."""
    y = torch.arange(len(x)) % 3 if y is None else y
    values = {"temperature": 1.5, "temperature_converged": True, "seed": 5, "num_classes": 3} | kwargs
    return MeasureContext(model=model, images={"test": x}, labels={"test": y}, **values)


def images(n=30, seed=0):
    return torch.rand(n, 1, 7, 7, generator=gen(seed))
