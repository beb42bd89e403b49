"""Attention against importance: ranks against scipy, ablation and Taylor against closed forms, planted agreement found."""

import copy

import numpy as np
import pytest
import torch
from gated import CHANNELS, CLASSES, Toy, context, cross_entropy, images, toy
from scipy import stats
from torch import nn

from study.config import TrialConfig
from study.models import build_network
from study.smoothness import measure, parse_settings
from study.smoothness.clamped import ablation, clamped, read_layers, taylor
from study.smoothness.rank_correlation import kendall, reliability, spearman, top_overlap


def test_rank_correlations_agree_with_scipy() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(20, 15)), generator.normal(size=(20, 15))
    a[5:10], b[8:] = np.round(a[5:10]), np.round(b[8:])  # ties
    for ours, theirs in ((spearman, stats.spearmanr), (kendall, stats.kendalltau)):
        expected = [theirs(x, y).statistic for x, y in zip(a, b, strict=True)]
        assert ours(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=1e-12)
    constant, other = torch.ones(1, 15).double(), torch.tensor(b[:1])
    assert all(each(constant, other).isnan().all() for each in (spearman, kendall, top_overlap))


def test_top_overlap_is_a_share_of_the_top_tenth() -> None:
    a = torch.arange(20.0).double()[None]
    b = a.clone()
    b[0, [19, 0]] = b[0, [0, 19]]  # of the top two one stays
    assert top_overlap(a, a) == 1 and top_overlap(a, -a) == 0 and top_overlap(a, b) == 0.5


def test_reliability_recovers_a_known_one() -> None:
    """Signal of variance 1, noise of the mean of 100 samples of variance .25: reliability 1 / 1.25 for many units."""
    generator = torch.Generator().manual_seed(1)
    signal, noise = torch.randn(2000, generator=generator), torch.randn(100, 2000, generator=generator)
    values = signal + 5 * noise
    # ranks of normal values: Spearman's r is (6 / pi) arcsin(r / 2), close to r
    assert reliability(values, 4, generator) == pytest.approx(0.8, abs=0.03)
    assert reliability(noise, 4, generator) < 0.1


@pytest.mark.parametrize("mean", [False, True])
def test_ablation_is_the_loss_worked_out_by_hand(mean: bool) -> None:
    model, (x, y) = toy(), images()
    ctx = context(model, x, y, chunk=7)
    (layer,) = read_layers(ctx, x)
    means = x.mean((2, 3)).double().numpy()
    bias, weight = model.attention.gate.bias.double().numpy(), model.weight.detach().double().numpy()
    gates = 1 / (1 + np.exp(-(bias + 0.5 * means)))
    assert layer.gate.numpy() == pytest.approx(gates, abs=1e-6)
    assert layer.activation.numpy() == pytest.approx(means, abs=1e-6)
    a_bar = gates.mean(0)
    baseline = cross_entropy((a_bar * means) @ weight.T, y.numpy())
    with clamped([layer]):
        losses, (first_order,) = taylor(ctx, [layer], x, y)
        found = ablation(ctx, layer, x, y, losses, mean=mean).numpy()
    assert losses.numpy() == pytest.approx(baseline, abs=1e-5)
    for c in range(CHANNELS):
        changed = means.copy()
        changed[:, c] = means[:, c].mean() if mean else 0.0
        expected = cross_entropy((a_bar * changed) @ weight.T, y.numpy()) - baseline
        assert found[:, c] == pytest.approx(expected, abs=1e-5)
    # Taylor: the derivative of the loss along the channel's scale, squared, by central differences
    for c in (0, 5):
        step = 1e-5
        up, down = means.copy(), means.copy()
        up[:, c] *= 1 + step
        down[:, c] *= 1 - step
        slope = (
            cross_entropy((a_bar * up) @ weight.T, y.numpy()) - cross_entropy((a_bar * down) @ weight.T, y.numpy())
        ) / (2 * step)
        assert first_order[:, c].numpy() == pytest.approx(slope**2, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_planted_agreement_is_found(sign: int, expected: float) -> None:
    """Two classes, class 0 always right, and channel c worth c: taking c out costs the more the larger c is."""
    worth = torch.linspace(0.5, 3, CHANNELS)
    weight = torch.stack([worth, -worth, torch.full((CHANNELS,), -9.0)])
    # the gate varies little, so that it hardly changes what a channel is worth
    model = Toy(sign * torch.linspace(-0.01, 0.01, CHANNELS), weight)
    x = images()[0]
    y = torch.zeros(len(x), dtype=torch.int64)
    # all channels alike in every image, so that only the weight tells them apart
    x = x[:, :1].expand_as(x).clone()
    settings = parse_settings("attention_importance", {})
    found = measure("attention_importance", settings, context(model, x, y))
    for kind in ("zero", "taylor"):
        assert found[f"attention_importance_spearman_{kind}"].value == pytest.approx(expected)
        assert found[f"attention_importance_kendall_{kind}"].value == pytest.approx(expected)
        assert found[f"attention_importance_ratio_{kind}"].value == pytest.approx(expected, abs=0.01)
        assert abs(found[f"attention_importance_spearman_null_{kind}"].value) < 0.15
    assert found["attention_importance_top10_zero"].value == (1.0 if sign > 0 else 0.0)


def test_gates_that_are_all_equal_rank_nothing() -> None:
    model, (x, y) = Toy(torch.zeros(CHANNELS), torch.randn(CLASSES, CHANNELS)), images()
    found = measure("attention_importance", parse_settings("attention_importance", {}), context(model, x, y))
    assert not found["attention_importance_spearman_zero"].converged
    assert not found["attention_importance_ratio_zero"].converged


def test_the_network_is_left_as_found_and_one_without_gates_has_no_estimates() -> None:
    model, (x, y) = toy(), images()
    before = copy.deepcopy(model.state_dict())
    settings = parse_settings("attention_importance", {"num_samples": 16})
    first = measure("attention_importance", settings, context(model, x, y, chunk=16))
    again = measure("attention_importance", settings, context(model, x, y, chunk=5))
    for name, estimate in first.items():
        assert again[name].value == pytest.approx(estimate.value, abs=1e-6, nan_ok=True), name
    assert not model.attention._forward_pre_hooks and not model.attention.gate._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 9, CLASSES))
    assert measure("attention_importance", settings, context(plain, x, y)) == {}


def test_a_real_network_has_three_layers_by_name() -> None:
    config = TrialConfig(dataset="fake", depth=8, width=4, seed=1, split_seed=0, attention="se", attention_form="mul")
    model = build_network(config, num_classes=CLASSES, mean=(0.5,), deviation=(0.3,))
    x, y = images(num=8, channels=1, side=8)
    settings = parse_settings("attention_importance", {"num_halves": 4, "num_shuffles": 20})
    found = measure("attention_importance", settings, context(model, x, y))
    layers = {name.split("_")[2] for name in found if "_layer" in name}
    assert layers == {"layer1", "layer2", "layer3"}
