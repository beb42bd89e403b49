"""Attention against timm's modules, weights copied across: value, input gradient, weight gradients, running statistics."""

import math

import pytest
import torch
from torch import nn

import study.models  # noqa: F401  registers attention
from study.registry import ATTENTION_FORMS, ATTENTIONS

layers = pytest.importorskip("timm.layers", reason="timm is a reference for tests alone", exc_type=ImportError)
cbam = pytest.importorskip("timm.layers.cbam", exc_type=ImportError)
coord_attn = pytest.importorskip("timm.layers.coord_attn", exc_type=ImportError)

WIDTHS = [8, 64]


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Gated(nn.Module):
    """x * a, where natively the attention is something else."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x):
        return x * self.gate(x)


def native(name: str, channels: int) -> nn.Module:
    return ATTENTION_FORMS["native"].build(ATTENTIONS[name].build(channels), channels)


def gather_excite(channels: int) -> nn.Module:
    """timm 1.0.31 cannot build its gather path (it passes the device as a kernel size), so that path is built here."""
    theirs = layers.GatherExcite(channels, extent=4, use_mlp=False)
    theirs.gather = nn.Sequential()
    for index in (1, 2):
        conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        theirs.gather.add_module(f"conv{index}", conv)
        theirs.gather.add_module(f"norm{index}", nn.BatchNorm2d(channels))
        if index == 1:
            theirs.gather.add_module("act1", nn.ReLU())
    return theirs


def global_context(channels: int, **fusion) -> nn.Module:
    theirs = layers.GlobalContext(channels, rd_channels=max(channels // 16, 4), **fusion)
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5  # as the authors' code and torch have it; timm has 1e-6
    return theirs


def selective_kernel(channels: int) -> nn.Module:
    groups = math.gcd(channels, 32)
    return layers.SelectiveKernel(channels, groups=groups, rd_channels=32, split_input=False)


# name: our module, timm's, and (timm's prefix, ours) of what is copied. What is not copied is set to zero: biases that a
# softmax or a batch norm takes away, which ours does not hold.
GC = [("conv_attn", "conv"), ("mlp.fc1", "fc1"), ("mlp.norm", "norm"), ("mlp.fc2", "fc2")]
CASES = {
    "se": (
        lambda c: native("se", c),
        lambda c: layers.SEModule(c, rd_channels=max(c // 16, 4)),
        [("fc1", "gate.fc1"), ("fc2", "gate.fc2")],
    ),
    "eca": (lambda c: native("eca", c), layers.EcaModule, [("conv", "gate.conv")]),
    "cbam": (
        lambda c: native("cbam", c),
        lambda c: cbam.CbamModule(c, rd_channels=max(c // 16, 4), mlp_bias=True),
        [
            ("channel.fc1", "gate.fc1"),
            ("channel.fc2", "gate.fc2"),
            ("spatial.conv.conv", "gate.spatial.conv"),
            ("spatial.conv.bn", "gate.spatial.bn"),
        ],
    ),
    "spatial": (
        lambda c: native("spatial", c),
        lambda c: cbam.SpatialAttn(),
        [("conv.conv", "gate.conv"), ("conv.bn", "gate.bn")],
    ),
    "ge": (
        lambda c: native("ge", c),
        gather_excite,
        [
            ("gather.conv1", "gate.conv1"),
            ("gather.norm1", "gate.bn1"),
            ("gather.conv2", "gate.conv2"),
            ("gather.norm2", "gate.bn2"),
        ],
    ),
    "gc": (
        lambda c: native("gc", c),
        lambda c: global_context(c, fuse_add=True, fuse_scale=False),
        [(theirs.replace("mlp", "mlp_add"), f"gate.{ours}") for theirs, ours in GC],
    ),
    "gc_multiplied": (
        lambda c: Gated(ATTENTIONS["gc"].build(c)),
        global_context,
        [(theirs.replace("mlp", "mlp_scale"), f"gate.{ours}") for theirs, ours in GC],
    ),
    "coordinate": (
        lambda c: native("coordinate", c),
        lambda c: coord_attn.CoordAttn(c, rd_channels=max(c // 32, 8), bias=True),
        [("conv1", "gate.conv"), ("bn1", "gate.bn"), ("conv_h", "gate.conv_h"), ("conv_w", "gate.conv_w")],
    ),
    "sk": (
        lambda c: native("sk", c),
        selective_kernel,
        [
            ("attn.fc_reduce", "gate.fc1"),
            ("attn.bn", "gate.bn"),
            ("attn.fc_select", "gate.fc2"),
            ("paths.0.conv", "carrier.conv1"),
            ("paths.0.bn", "carrier.bn1"),
            ("paths.1.conv", "carrier.conv2"),
            ("paths.1.bn", "carrier.bn2"),
        ],
    ),
    "non_local": (
        lambda c: native("non_local", c),
        lambda c: layers.NonLocalAttn(c, use_scale=False, rd_channels=c // 2),
        [("t", "gate.theta"), ("p", "gate.phi"), ("g", "carrier.value"), ("z", "carrier.out"), ("norm", "carrier.bn")],
    ),
}


def scatter(module: nn.Module) -> None:
    """Every parameter and running statistic off its start; convolutions keep the scale that activations need."""
    for index, (name, tensor) in enumerate(module.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        values = draw(*tensor.shape, seed=index)
        if tensor.dim() > 1:
            values = values / math.sqrt(tensor[0].numel())
        tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)


def pair(name: str, channels: int) -> tuple[nn.Module, nn.Module, dict[str, str]]:
    """Our module, timm's with our weights, and timm's names to ours."""
    make_ours, make_theirs, prefixes = CASES[name]
    ours, theirs = make_ours(channels).double(), make_theirs(channels).double()
    scatter(ours)
    mine, names = ours.state_dict(), {}
    for key, tensor in theirs.state_dict().items():
        prefix, _, leaf = key.rpartition(".")
        names[key] = f"{dict(prefixes).get(prefix)}.{leaf}"
        if names[key] in mine:
            tensor.copy_(mine[names[key]].view(tensor.shape))
        else:
            assert leaf == "bias", key
            tensor.zero_()
            del names[key]
    assert set(names.values()) == mine.keys()  # nothing of ours is left out
    return ours, theirs, names


def deviation(a, b) -> float:
    """Largest difference relative to the largest value."""
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def compare(name: str, channels: int, training: bool) -> dict[str, float]:
    """Largest relative deviations of value, input gradient, weight gradients and running statistics."""
    ours, theirs, names = pair(name, channels)
    results = []
    for model in (ours.train(training), theirs.train(training)):
        x = draw(3, channels, 9, 6, seed=50).requires_grad_()
        y = model(x)
        (y * draw(*y.shape, seed=51)).sum().backward()
        results.append((y.detach(), x.grad, dict(model.named_parameters()), dict(model.named_buffers())))
    (y, grad, parameters, buffers), (y_, grad_, parameters_, buffers_) = results
    weights = [
        deviation(parameters[mine].grad.view(parameters_[other].shape), parameters_[other].grad)
        for other, mine in names.items()
        if other in parameters_
    ]
    running = [
        deviation(buffers[names[k]], v)
        for k, v in buffers_.items()
        if k in names and v.is_floating_point() and v.numel()
    ]
    assert all(p.grad.abs().max() > 0 for p in parameters.values())
    found = {"value": deviation(y, y_), "input": deviation(grad, grad_), "weights": max(weights)}
    return found | {"running": max(running, default=0.0)}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("name", CASES)
def test_attention_as_published_is_timms(name, channels, training):
    for what, found in compare(name, channels, training).items():
        assert found < 1e-10, (what, found)  # float64; rounding accumulates in the batch norms


def test_the_check_can_fail():
    ours, theirs, _ = pair("se", 8)
    theirs.fc2.bias.data[3] += 1e-6
    x = draw(2, 8, 3, 3)
    assert deviation(ours(x), theirs(x)) > 1e-8


@pytest.mark.parametrize("channels", [4, 8, 16, 32, 64, 128, 256, 512])
def test_ecas_kernel_is_as_wide_as_timms(channels):
    assert native("eca", channels).gate.conv.kernel_size[0] == layers.EcaModule(channels).conv.kernel_size[0]
