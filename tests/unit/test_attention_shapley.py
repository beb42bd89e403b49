"""Shapley values of units: the closed form where units add up, all orders by hand where they do not, efficiency, honesty."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from gated import Attention, Gate, context, cross_entropy, images
from torch import nn

from study.errors import UserError
from study.smoothness import measure, parse_settings
from study.smoothness.attention_shapley import random_orders, shapley
from study.smoothness.clamped import ablation, clamped, read_layers, taylor

CLASSES = 3


class ReadOut(nn.Module):
    """Logits: weight times the means of gated channels, plus a bias."""

    def __init__(self, channels: int, bias: tuple[float, ...], slope: float = 0.5, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(8)
        self.attention = Attention(Gate(torch.randn(channels, generator=generator), slope))
        self.weight = nn.Parameter(scale * torch.randn(CLASSES, channels, generator=generator))
        self.register_buffer("bias", torch.tensor(bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x).mean((2, 3)) @ self.weight.T + self.bias


def test_where_units_add_up_every_order_gives_the_ablation() -> None:
    """With the true class far behind, log p = logit_0 - logit_1 to e^-30: linear in the units."""
    model, (x, _) = ReadOut(6, (-40.0, 0.0, -100.0)), images(num=5, channels=6)
    y = torch.zeros(5, dtype=torch.int64)
    ctx = context(model, x, y)
    (layer,) = read_layers(ctx, x)
    with clamped([layer]):
        values = shapley(ctx, layer, x, y, random_orders(6, 3, 1))
        ablated = ablation(ctx, layer, x, y, taylor(ctx, [layer], x, y)[0], mean=False)
    a_bar = (model.attention.gate.bias.double() + 0.5 * x.mean((2, 3)).double()).sigmoid().mean(0)
    expected = (model.weight[0] - model.weight[1]).detach().double() * a_bar * x.mean((2, 3)).double()
    for each in (*values, ablated):
        torch.testing.assert_close(each, expected, rtol=0, atol=2e-5)


def test_over_all_orders_it_is_the_shapley_value_by_subsets() -> None:
    """phi_u = sum over S without u of |S|! (U - |S| - 1)! / U! (v(S + u) - v(S)), v worked out in numpy."""
    channels = 4
    model, (x, y) = ReadOut(channels, (0.3, 0.0, -0.2), scale=4.0), images(num=5, channels=channels)
    ctx = context(model, x, y, chunk=7)
    (layer,) = read_layers(ctx, x)
    with clamped([layer]):
        values = shapley(ctx, layer, x, y, list(itertools.permutations(range(channels))))
    means, a_bar = x.mean((2, 3)).double().numpy(), layer.gate.mean(0).numpy()
    weight, bias = model.weight.detach().double().numpy(), model.bias.double().numpy()

    def v(units: tuple[int, ...]) -> np.ndarray:
        kept = np.isin(np.arange(channels), units)
        return -cross_entropy((means * a_bar * kept) @ weight.T + bias, y.numpy())

    for u in range(channels):
        rest = [c for c in range(channels) if c != u]
        subsets = [s for k in range(channels) for s in itertools.combinations(rest, k)]
        share = [
            math.factorial(len(s)) * math.factorial(channels - len(s) - 1) / math.factorial(channels) for s in subsets
        ]
        expected = sum(p * (v((*s, u)) - v(s)) for p, s in zip(share, subsets, strict=True))
        assert values.mean(0)[:, u].numpy() == pytest.approx(expected, abs=1e-5)
    # efficiency, order by order; and the orders do differ
    whole = v(tuple(range(channels))) - v(())
    assert values.sum(2).numpy() == pytest.approx(np.tile(whole, (24, 1)), abs=1e-5)
    assert float(values.std(0).max()) > 0.01


def take(model: nn.Module, **settings: object) -> dict:
    ctx = context(model, *images(channels=12))
    return measure("attention_shapley", parse_settings("attention_shapley", settings), ctx)


def test_converged_where_the_orders_are_enough() -> None:
    state = torch.get_rng_state()
    additive = take(ReadOut(12, (0.0, 0.0, 0.0), scale=0.1), num_samples=20, num_orders=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert additive["attention_shapley_reliability"].value > 0.95
    assert all(e.converged for e in additive.values())
    # nearly additive: ranks are those of ablation
    assert additive["attention_shapley_ablation"].value > 0.95
    assert additive["attention_shapley_layer1_spearman"] == additive["attention_shapley_spearman"]
    again = take(ReadOut(12, (0.0, 0.0, 0.0), scale=0.1), num_samples=20, num_orders=4)
    assert {name: e.value for name, e in again.items()} == {name: e.value for name, e in additive.items()}
    entangled = take(ReadOut(12, (0.0, 0.0, 0.0), scale=60.0), num_samples=4, num_orders=2)
    assert entangled["attention_shapley_reliability"].value < 0.8
    assert not any(e.converged for e in entangled.values())


def test_equal_gates_rank_nothing_and_a_network_without_gates_has_no_estimates() -> None:
    equal = ReadOut(12, (0.0, 0.0, 0.0), slope=0.0, scale=0.1)
    equal.attention.gate.bias.zero_()
    found = take(equal, num_samples=8, num_orders=4)
    assert not found["attention_shapley_spearman"].converged and found["attention_shapley_ablation"].converged
    assert take(nn.Sequential(nn.Flatten(), nn.Linear(108, CLASSES))) == {}


def test_without_captum_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"needs captum: pip install 'fmm-study\[shapley\]'"):
        take(ReadOut(12, (0.0, 0.0, 0.0)))
