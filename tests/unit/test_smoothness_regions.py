"""Linear-region transitions against networks whose regions are known, and ReLUs found whoever calls them."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from toys import Fn, fn_context, gen, run

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network
from study.smoothness import estimate, parse_settings
from study.smoothness.pairs import draw_pairs

K, PIXELS, UNITS = 3, 5, 40


def layer(seed=1):
    """One layer of ReLUs: each unit's boundary is one hyperplane."""
    net = nn.Sequential(nn.Linear(PIXELS, UNITS), nn.ReLU(), nn.Linear(UNITS, K))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=gen(seed)))
    net.num_classes = K
    return net


def points(n=30, seed=0):
    return torch.rand(n, PIXELS, generator=gen(seed))


@pytest.mark.parametrize("chunk", [512, 8, 1])
def test_a_line_crosses_a_hyperplane_once_or_never(chunk):
    net, x = layer(), points()
    context = fn_context(net, x, chunk=chunk)
    found = run("linear_regions", context, num_pairs=25, num_samples=2, num_steps=8)
    a, b = (parameter.detach().double().numpy() for parameter in net[0].parameters())
    on = x.double().numpy() @ a.T + b > 0
    for kind in ("same", "different"):
        # the pairs are those of ``path``
        pairs = draw_pairs(torch.arange(30) % K, 25, kind == "same", context.generator(f"path/{kind}/test"))
        crossed = (on[pairs[:, 0]] != on[pairs[:, 1]]).sum(1)
        lengths = np.linalg.norm(np.diff(x.double().numpy()[pairs.numpy()], axis=1)[:, 0], axis=1)
        expected = {
            "transitions": crossed,
            "share": crossed / UNITS,
            "excess": 0 * crossed,
        }
        for name, values in expected.items():
            got = found[f"regions_{kind}_{name}"]
            assert got.value == pytest.approx(values.mean(), rel=1e-6) and got.converged and got.num_samples == 25
            shared = estimate.mean(
                torch.tensor(values), pairs
            ).stderr  # against a plain loop: test_smoothness_errors.py
            assert got.stderr == pytest.approx(shared, rel=1e-5, abs=1e-12)
        per_length = found[f"regions_{kind}_per_length"]
        assert per_length.value == pytest.approx(crossed.mean() / lengths.mean(), rel=1e-6)
        residual = crossed - per_length.value * lengths
        shared = estimate.mean(torch.tensor(residual), pairs).stderr
        assert per_length.stderr == pytest.approx(shared / lengths.mean(), rel=1e-5)
        assert found[f"regions_{kind}_transitions_log"].value == pytest.approx(math.log(crossed.mean()))
        assert found[f"regions_{kind}_resolved"].value == 1


def test_an_ellipse_crosses_a_hyperplane_twice_or_never():
    net, x = layer(), points()
    context = fn_context(net, x)
    found = run("linear_regions", context, num_pairs=1, num_samples=30, num_steps=800, sigmas=[64])
    a, b = (parameter.detach().double().numpy() for parameter in net[0].parameters())
    axes = [
        torch.randn(30, PIXELS, generator=context.generator(f"linear_regions/axis/{n}/test")).double() for n in "ab"
    ]
    reach = 64 / 255 * np.hypot(*(axis.numpy() @ a.T for axis in axes))
    crossed = 2 * (np.abs(x.double().numpy() @ a.T + b) < reach).sum(1)
    got = found["regions_noise_64_transitions"]
    # a boundary that is only grazed, between two of 800 points, is missed
    assert got.value == pytest.approx(crossed.mean(), rel=1e-2) and crossed.mean() > 1
    assert found["regions_noise_64_resolved"].value > 0.99
    angle = np.linspace(0, 2 * math.pi, 801)[:, None, None]
    ring = 64 / 255 * (np.cos(angle) * axes[0].numpy() + np.sin(angle) * axes[1].numpy())
    lengths = np.linalg.norm(np.diff(ring, axis=0), axis=2).sum(0)
    assert found["regions_noise_64_per_length"].value == pytest.approx(crossed.mean() / lengths.mean(), rel=1e-2)


class Sawtooth(nn.Module):
    """The tent map ``depth`` times over, one ReLU module for all (Telgarsky 2016, https://arxiv.org/abs/1602.04485).

    The l-th pass turns round 2^(l-1) times, so its ReLU at 1/2 changes sign as often: 2^depth - 1 in all.
    """

    num_classes = 2

    def __init__(self, depth):
        super().__init__()
        self.depth, self.relu = depth, nn.ReLU()

    def forward(self, x):
        h = x
        for _ in range(self.depth):
            h = 2 * self.relu(h) - 4 * self.relu(h - 0.5)
        return torch.cat([h, -h], 1)


def test_a_module_that_is_called_again_counts_again():
    x = torch.tensor([[0.0031], [0.9967], [0.0031], [0.9967]])
    context = fn_context(Sawtooth(5), x, torch.tensor([0, 0, 1, 1]))
    found = run("linear_regions", context, num_steps=300)
    # the pairs of one label go from end to end
    same = found["regions_same_transitions"]
    assert same.value == 2**5 - 1 and same.num_samples == 2 and same.converged
    assert found["regions_same_excess"].value == 2**5 - 2  # all but the first are taken back
    assert found["regions_same_share"].value == pytest.approx(31 / 10)  # two calls of one module, five times over
    coarse = run("linear_regions", context, num_steps=6)
    assert coarse["regions_same_transitions"].value < 31 and not coarse["regions_same_transitions"].converged
    assert coarse["regions_same_resolved"].value < 0.9


FORMS = {
    "functional": functional.relu,
    "method": lambda h: h.relu(),
    "in place": lambda h: (h * 1).relu_(),
    "module in place": lambda h: nn.ReLU(inplace=True)(h * 1),
    "leaky": nn.LeakyReLU(0.1),
    "parametric": nn.PReLU(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_relu_is_seen(form):
    first, _, last = layer()
    plain = run("linear_regions", fn_context(layer(), points()), num_pairs=9, num_samples=9)
    found = run(
        "linear_regions", fn_context(Fn(lambda x: last(FORMS[form](first(x))), K), points()), num_pairs=9, num_samples=9
    )
    assert found == plain


def test_relu6_bends_at_both_ends():
    first, _, last = layer()
    found = run(
        "linear_regions", fn_context(Fn(lambda x: last(functional.relu6(4 * first(x))), K), points()), num_pairs=9
    )
    shifted = Fn(lambda x: last(functional.relu(first(x))) + last(functional.relu(4 * first(x) - 6)), K)
    expected = run("linear_regions", fn_context(shifted, points()), num_pairs=9)
    for name in ("regions_same_transitions", "regions_different_transitions", "regions_noise_16_transitions"):
        assert found[name].value == expected[name].value


def test_all_relus_of_our_own_networks_are_counted():
    class Count(TorchFunctionMode):
        total = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if getattr(func, "__name__", "") in ("relu", "relu_"):
                self.total += out.numel()
            return out

    config = TrialConfig(dataset="fake", depth=8, width=4, seed=1, split_seed=0, attention="se", attention_form="mul")
    net = build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,)).eval()
    net.num_classes = 4
    x = torch.rand(12, 1, 8, 8, generator=gen())
    with Count() as count:
        net(x[:1])
    found = run("linear_regions", fn_context(net, x), num_pairs=4, num_samples=4)
    ratio = found["regions_same_transitions"].value / found["regions_same_share"].value
    assert ratio == pytest.approx(count.total) and count.total > 500


def test_networks_without_regions_to_count_are_refused():
    smooth = Fn(lambda x: torch.tanh(x)[:, :K], K)
    with pytest.raises(UserError, match="the network has no ReLU"):
        run("linear_regions", fn_context(smooth, points()))
    for activation in (functional.gelu, functional.silu, nn.SiLU(inplace=True)):
        mixed = Fn(lambda x, smooth=activation: functional.relu(smooth(x - 0.5))[:, :K], K)
        with pytest.raises(UserError, match=r"the network has (GELU|SILU): it has no linear regions"):
            run("linear_regions", fn_context(mixed, points()))
    turned = Fn(lambda x: functional.relu(x.T - 0.5).T[:, :K], K)
    with pytest.raises(UserError, match=r"ReLU sees a tensor of shape \(5, .*first dimension must be"):
        run("linear_regions", fn_context(turned, points()))


def test_bad_settings_are_named():
    with pytest.raises(UserError, match="'num_steps' must be even, not 7"):
        parse_settings("linear_regions", {"num_steps": 7})
    with pytest.raises(UserError, match="'sigmas' holds a value twice"):
        parse_settings("linear_regions", {"sigmas": [4, 4.0]})
