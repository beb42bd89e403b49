"""Every merge operator against its formula by hand, finite differences, its stated start, cost and half precision."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import study.models
from study.config import TrialConfig
from study.models import build_network, num_params
from study.models.build import initialise
from study.models.fixed_draws import derangement
from study.models.merges import Merge
from study.registry import MERGES


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(**changes) -> nn.Module:
    config = TrialConfig(**{"dataset": "fake", "depth": 8, "width": 8, "seed": 1, "split_seed": 0} | changes)
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,))


def pixels(n=4):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def operator(name, channels=3, away=True) -> Merge:
    """In float64; with ``away`` its parameters are off their start, where g is 0 and norms are plain."""
    merge = MERGES[name].build(channels).double()
    initialise(merge, 5)
    if away:
        for index, parameter in enumerate(merge.parameters()):
            parameter.data.copy_(draw(*parameter.shape, seed=10 + index))
    return merge


def bn(x, norm):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def s(x):
    return 1 / (1 + torch.exp(-x))


def conv1x1(x, layer):
    out = torch.einsum("nchw,oc->nohw", x, layer.weight[:, :, 0, 0])
    return out if layer.bias is None else out + layer.bias.view(1, -1, 1, 1)


def highway(m, x, f):
    t = s(conv1x1(x, m.gate))
    return t * f + (1 - t) * x


def noise_gate(m, x, f):
    t = f.tanh()
    deviation = (((t - t.mean((0, 2, 3), keepdim=True)) ** 2).mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    return x + x * deviation * m.signs(x.shape, x.device)


def starred(m, f, join):
    return bn(conv1x1(join(conv1x1(f, m.w1).clamp(0, 6), conv1x1(f, m.w2)), m.project), m.bn)


FORMULAS = {
    "add": lambda m, x, f: x + f,
    "add_alias": lambda m, x, f: x + f,
    "add_bn": lambda m, x, f: bn(x, m.bn_x) + bn(f, m.bn_f),
    "none": lambda m, x, f: f,
    "rezero": lambda m, x, f: x + m.g * f,
    "mul": lambda m, x, f: x * f,
    "mul_bn": lambda m, x, f: bn(x, m.bn_x) * bn(f, m.bn_f),
    "mul_bn_shift1": lambda m, x, f: bn(x, m.bn_x) * bn(f, m.bn_f),
    "mul_id": lambda m, x, f: x + x * f,
    "sig_bn": lambda m, x, f: s(bn(f, m.bn_f)) * bn(x, m.bn_x),
    "bn_sig": lambda m, x, f: (s(bn(x, m.bn_x)) + 0.5) * bn(f, m.bn_f),
    "sig_sig": lambda m, x, f: (s(bn(x, m.bn_x)) + 0.5) * s(bn(f, m.bn_f)),
    "tanh_gate": lambda m, x, f: x * 2 * s(2 * f),
    "highway": highway,
    "mix": lambda m, x, f: x + f + m.g * x * f,
    "mix_25": lambda m, x, f: x + f + x * f / 4,
    "mix_50": lambda m, x, f: x + f + x * f / 2,
    "mix_100": lambda m, x, f: (1 + x) * (1 + f) - 1,
    "square": lambda m, x, f: x + f + m.g * f**2,
    "square_25": lambda m, x, f: x + f + f**2 / 4,
    "square_50": lambda m, x, f: x + f + f**2 / 2,
    "square_100": lambda m, x, f: x + f * (1 + f),
    "star": lambda m, x, f: x + starred(m, f, lambda a, b: a * b),
    "star_sum": lambda m, x, f: x + starred(m, f, lambda a, b: a + b),
    "glu": lambda m, x, f: nn.functional.glu(torch.cat([x, f], 1), 1),
    "max": lambda m, x, f: torch.where(x > f, x, f),
    "concat": lambda m, x, f: conv1x1(torch.cat([x, f], 1), m.projection),
    "tanh_gate_shuffled": lambda m, x, f: torch.stack(
        [x[i] * 2 * s(2 * f[j]) for i, j in enumerate(derangement(len(x), x.device).tolist())]
    ),
    "noise_gate": noise_gate,
    "add_bn_f": lambda m, x, f: x + bn(f, m.bn_f),
    "sig1_bn": lambda m, x, f: (1 + s(f)) * bn(x, m.bn_x),
    "sig_bn_shift_x": lambda m, x, f: s(bn(f, m.bn_f)) * bn(x, m.bn_x),
    "bn_sig_shift_f": lambda m, x, f: (s(bn(x, m.bn_x)) + 0.5) * bn(f, m.bn_f),
    "sig_sig_raw": lambda m, x, f: s(x) * s(f),
    "sig_sig_bn_f": lambda m, x, f: s(x) * s(bn(f, m.bn_f)),
    "adapt_gate": lambda m, x, f: f * s(conv1x1(x, m.adapt)),
}


def test_every_operator_has_a_formula_here():
    # a matched addition is x + F by construction (test_networks_matched.py has what it costs); rows: test_merge_rows.py
    assert set(FORMULAS) == {entry.name for entry in MERGES if not entry.traits.keys() & {"matches", "row"}}


@pytest.mark.parametrize("name", FORMULAS)
def test_an_operator_is_its_formula(name):
    merge = operator(name)
    x, f = 2 * draw(4, 3, 3, 2, seed=1), 2 * draw(4, 3, 3, 2, seed=2)
    torch.testing.assert_close(merge(x, f), FORMULAS[name](merge, x, f), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("add", 2.5), ("none", 0.5), ("mul", 1), ("mul_id", 3), ("tanh_gate", 2 + 2 * math.tanh(0.5)), ("max", 2),
        ("glu", 2 / (1 + math.exp(-0.5))), ("rezero", 2), ("mix", 2.5), ("mix_25", 2.75), ("mix_50", 3), ("mix_100", 3.5),
        ("square", 2.5), ("square_25", 2.5625), ("square_50", 2.625), ("square_100", 2.75),
    ],
)  # fmt: skip
def test_values_at_the_start_for_x_2_and_f_one_half(name, value):
    x = torch.full((2, 3, 2, 2), 2.0, dtype=torch.float64)
    assert operator(name, away=False)(x, x / 4).sub(value).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("add_bn", lambda x, f: x + f), ("mul_bn", lambda x, f: x * f), ("mul_bn_shift1", lambda x, f: (x + 1) * (f + 1)),
        ("sig_bn", lambda x, f: x / (1 + math.exp(-f))), ("bn_sig", lambda x, f: (1 / (1 + math.exp(-x)) + 0.5) * f),
        ("sig_sig", lambda x, f: (1 / (1 + math.exp(-x)) + 0.5) / (1 + math.exp(-f))),
    ],
)  # fmt: skip
def test_values_at_the_start_of_those_that_normalise(name, value):
    # x is 3 or 7 and F 10 or -10: normalised, 1 or -1 but for the norm's 1e-5
    x = torch.tensor([3.0, 3.0, 7.0, 7.0], dtype=torch.float64).view(4, 1, 1, 1)
    f = torch.tensor([10.0, -10.0, 10.0, -10.0], dtype=torch.float64).view(4, 1, 1, 1)
    got = operator(name, 1, away=False)(x, f).flatten().tolist()
    assert got == pytest.approx([value(-1, 1), value(-1, -1), value(1, 1), value(1, -1)], abs=2e-5)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_finite_differences(name, training):
    merge = operator(name).train(training)
    names = [parameter for parameter, _ in merge.named_parameters()]

    def merged(x, f, *values):
        return functional_call(merge, dict(zip(names, values, strict=True)), (x, f))

    values = [p.detach().clone().requires_grad_() for p in merge.parameters()]
    x, f = draw(3, 3, 2, 1, seed=1).requires_grad_(), draw(3, 3, 2, 1, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(merged, (x, f, *values))


def test_doses_and_controls_that_start_at_zero_start_as_addition():
    x = pixels()
    expected = network(merge="add")(x)
    for name in ("mix", "square"):
        assert torch.equal(network(merge=name)(x), expected)
    for name in ("mix_25", "square_25", "rezero"):  # the check can fail
        assert not torch.allclose(network(merge=name)(x), expected)


def test_stated_starts():
    block = network(merge="highway").stages[1][0]
    assert block.merge.gate.bias.eq(-2).all() and float(block.merge.gate.weight.detach().std()) > 0.1
    for name, shift in (("mul_bn", 0), ("mul_bn_shift1", 1), ("add_bn", 0), ("bn_sig", 0), ("sig_sig", 0)):
        merge = network(merge=name).stages[0][0].merge
        for norm in (merge.bn_x, merge.bn_f):
            assert norm.bias.eq(shift).all() and norm.weight.eq(1).all()
    star, star_sum = (dict(network(merge=name).named_parameters()) for name in ("star", "star_sum"))
    assert star.keys() == star_sum.keys() and all(torch.equal(star[k], star_sum[k]) for k in star)
    concat = network(merge="concat", width=32).stages[2][0].merge.projection.weight.detach()
    assert float(concat.var()) * 128 / 2 == pytest.approx(1, abs=4 * math.sqrt(2 / concat.numel()))


@pytest.mark.parametrize("name", FORMULAS)
def test_parameters_are_counted_by_the_declared_formula(name):
    entry = MERGES[name]
    own = {c: eval(entry.traits["extra_params"], {"C": c}) for c in (4, 8, 16, 32, 64)}
    for channels, count in own.items():
        assert num_params(entry.build(channels)) == count
    # what an operator normalises itself, the block and its projection do not
    merge = entry.build(8)
    branch = -2 * merge.normalizes_branch
    projection = {8: 0, 16: 8 * 16 + 2 * 16, 32: 16 * 32 + 2 * 32}
    shortcut = {c: -2 * c * merge.normalizes_shortcut if merge.uses_shortcut else -projection[c] for c in (16, 32)}
    extra = sum(own[c] for c in (8, 16, 32)) + branch * (8 + 16 + 32) + sum(shortcut.values())
    assert num_params(network(merge=name)) - num_params(network(merge="add")) == extra
    at_branch = sum(own[c] for c in (8, 16, 32)) + branch * (8 + 16 + 32)
    assert num_params(network(merge=name, merge_site="branch")) - num_params(network(merge="add")) == at_branch


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", FORMULAS)
def test_in_half_precision_an_operator_keeps_to_its_value(name, dtype):
    merge = operator(name, 8)
    x, f = draw(8, 8, 4, 4, seed=1).relu().to(dtype), draw(8, 8, 4, 4, seed=2).to(dtype)
    exact = merge(x.double(), f.double())
    with torch.autocast("cpu", dtype):
        got = copy.deepcopy(merge).float()(x, f)
    # a dozen roundings at the most, products of 1x1 convolutions among them
    error = (got.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert got.isfinite().all() and error < 6 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", FORMULAS)
def test_a_stack_of_operators_is_each_of_them(name):
    """``vmap`` over stacked states is how a group of replicates trains at once; nothing in ``forward`` may forbid it."""
    parts = [operator(name, 4) for _ in range(2)]
    for parameter in parts[1].parameters():
        parameter.data.mul_(0.5)
    x, f = draw(2, 5, 4, 3, 3, seed=1), draw(2, 5, 4, 3, 3, seed=2)
    parameters, buffers = stack_module_state(copy.deepcopy(parts))

    def run(values, kept, x, f):
        return functional_call(parts[0], (values, kept), (x, f))

    stacked = vmap(run)(parameters, buffers, x, f)
    for index, part in enumerate(parts):
        torch.testing.assert_close(stacked[index], part(x[index], f[index]), rtol=1e-10, atol=1e-12)


def test_the_operators_own_parameters_start_equal_too():
    """Cells that differ in depth or place share the parameters of one name, an operator's among them."""
    for name in ("star", "highway", "concat", "mul_bn_shift1"):
        one = dict(network(merge=name).named_parameters())
        for changes in ({"depth": 14}, {"merge_site": "branch"}, {"depth": 14, "merge_where": "first"}):
            other = dict(network(merge=name, **changes).named_parameters())
            shared = [key for key in one.keys() & other.keys() if ".merge." in key]
            assert len(shared) >= 3 and all(torch.equal(one[key], other[key]) for key in shared), (name, changes)
    assert study.models  # registers the operators
