"""The parts of smoothness: estimates, scales, batch-norm re-estimation, samples and pairs."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from toys import conv_context as context
from toys import conv_net, gen, images

from study.errors import UserError
from study.smoothness import MeasureContext, estimate, fit_temperature, reestimated_batchnorm, unit_logits
from study.smoothness.pairs import draw_pairs

# --- estimates --------------------------------------------------------------------------------------------------------


def test_estimators_against_numpy() -> None:
    x = np.random.default_rng(0).gamma(2.0, size=50)
    t = torch.tensor(x)
    mean, stderr = x.mean(), x.std(ddof=1) / math.sqrt(50)
    assert estimate.mean(t) == estimate.Estimate(pytest.approx(mean), pytest.approx(stderr), 50, True)
    log = estimate.log_of_mean(t)
    assert (log.value, log.stderr) == (pytest.approx(math.log(mean)), pytest.approx(stderr / mean))
    rms = estimate.root_mean_square(t)
    square = x**2
    assert rms.value == pytest.approx(math.sqrt(square.mean()))
    assert rms.stderr == pytest.approx(square.std(ddof=1) / math.sqrt(50) / 2 / rms.value)
    assert estimate.root_mean_square(torch.zeros(4)) == estimate.Estimate(0, 0, 4, True)
    ratio = estimate.ratio_of_means(3 * t, t)
    assert (ratio.value, ratio.stderr) == (pytest.approx(3), pytest.approx(0, abs=1e-12))


def test_estimates_that_cannot_be_trusted_say_so() -> None:
    for bad in (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf]), torch.empty(0)):
        for f in (estimate.mean, estimate.log_of_mean, estimate.root_mean_square):
            got = f(bad)
            assert (math.isnan(got.value), got.num_samples, got.converged) == (True, len(bad), False)
    one = estimate.mean(torch.tensor([2.0]))
    assert (one.value, math.isnan(one.stderr), one.converged) == (2, True, False)
    assert math.isnan(estimate.log_of_mean(torch.zeros(3)).value)
    assert not estimate.log_of_mean(torch.tensor([1e-7, 2e-7]), resolution=1e-6).converged
    assert math.isnan(estimate.ratio_of_means(torch.ones(3), torch.zeros(3)).value)


@pytest.mark.parametrize(
    ("estimator", "truth"),
    [(estimate.mean, 2.0), (estimate.log_of_mean, math.log(2)), (estimate.root_mean_square, math.sqrt(6))],
)
def test_standard_errors_cover(estimator, truth) -> None:
    # gamma(2): mean 2, mean square 6; 1,000 repetitions, so a coverage of .95 is seen within .02
    samples = torch.tensor(np.random.default_rng(1).gamma(2.0, size=(1000, 200)))
    hits = [abs(e.value - truth) < 1.96 * e.stderr for e in map(estimator, samples)]
    assert np.mean(hits) == pytest.approx(0.945, abs=0.025)


def test_ratio_of_means_covers() -> None:
    rng = np.random.default_rng(2)
    bottom = rng.gamma(2.0, size=(1000, 200))
    top = torch.tensor(3 * bottom + rng.normal(size=bottom.shape))
    hits = [abs(e.value - 3) < 1.96 * e.stderr for e in map(estimate.ratio_of_means, top, torch.tensor(bottom))]
    assert np.mean(hits) == pytest.approx(0.945, abs=0.025)


# --- scales -----------------------------------------------------------------------------------------------------------


def test_temperature_is_recovered_and_agrees_with_an_independent_minimiser() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 5)) * 2
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = np.array([rng.choice(5, p=row) for row in p])

    def nll(log_t: float, logits: np.ndarray) -> float:
        s = logits / np.exp(log_t)
        return float((np.log(np.exp(s).sum(1)) - s[np.arange(len(y)), y]).mean())

    for factor in (0.2, 1.0, 8.0):
        got, converged = fit_temperature(torch.tensor(factor * z), torch.tensor(y))
        best = minimize_scalar(nll, args=(factor * z,), bounds=(-3, 4), method="bounded", options={"xatol": 1e-10})
        assert converged
        assert got == pytest.approx(math.exp(best.x), rel=1e-5)
        assert got == pytest.approx(factor, rel=0.1)


def test_temperature_without_an_optimum_is_not_converged() -> None:
    labels = torch.tensor([0, 1, 0])
    right = 3 * nn.functional.one_hot(labels, 2).float()
    assert fit_temperature(right, labels) == (0.05, False)
    assert fit_temperature(-right, labels) == (100.0, False)
    value, converged = fit_temperature(right * math.nan, labels)
    assert (math.isnan(value), converged) == (True, False)
    with pytest.raises(UserError, match="labels"):
        fit_temperature(right, labels[:2])


def test_unit_logits_have_length_one_and_are_zero_without_direction() -> None:
    z = torch.randn(6, 4, generator=gen())
    u = unit_logits(z)
    assert torch.allclose(u.norm(dim=1), torch.ones(6).double())
    assert torch.allclose(unit_logits(50 * z - 3), u, atol=1e-6)
    assert torch.equal(unit_logits(torch.full((2, 4), 3.0)), torch.zeros(2, 4).double())


# --- batch norm -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch_size"), [(24, 8), (25, 8), (9, 8), (10, 100), (3, 1)])
def test_batchnorm_statistics_are_the_weighted_average_over_batches(n: int, batch_size: int) -> None:
    x = images(n).double()
    net = conv_net().double()
    net[1].running_var.fill_(math.inf)  # what was there before is forgotten, whatever it was
    sizes = {(24, 8): [8, 8, 8], (25, 8): [7, 6, 6, 6], (9, 8): [5, 4], (10, 100): [10], (3, 1): [3]}[n, batch_size]
    means, variances = np.zeros(4), np.zeros(4)
    for part in np.split(net[0](x).detach().numpy(), np.cumsum(sizes)[:-1]):
        channels = part.transpose(1, 0, 2, 3).reshape(4, -1)
        means += len(part) / n * channels.mean(1)
        variances += len(part) / n * channels.var(1, ddof=1)
    with reestimated_batchnorm(net, x, batch_size):
        assert np.allclose(net[1].running_mean, means, rtol=1e-12)
        assert np.allclose(net[1].running_var, variances, rtol=1e-12)
        assert not any(m.training for m in net.modules())
        assert net[1].momentum == 0.1
        if len(sizes) == 1:  # a second layer sees what the first gives in training
            normed = nn.functional.batch_norm(net[0](x), None, None, net[1].weight, net[1].bias, True)
            inner = net[3](torch.relu(normed))
            assert torch.allclose(net[4].running_mean, inner.mean((0, 2, 3)))
    # the mean over all images is the plain mean, whatever the cuts
    assert np.allclose(means, net[0](x).detach().numpy().mean((0, 2, 3)), rtol=1e-12)


def snapshot(net: nn.Module) -> tuple:
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    modes = [m.training for m in net.modules()]
    momenta = [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    return copy.deepcopy(net.state_dict()), grads, modes, momenta


def assert_same(a: tuple, b: tuple) -> None:
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    assert all((g is None and h is None) or torch.equal(g, h) for g, h in zip(a[1], b[1], strict=True))
    assert a[2:] == b[2:]


def trained_a_little() -> nn.Module:
    net = conv_net().train()
    net[5].eval()  # a frozen part keeps its own mode
    net[4].momentum = None
    net[0](images()).sum().backward()  # only some parameters have gradients
    net[1](net[0](images(seed=3)))
    return net


def test_batchnorm_is_restored_bit_for_bit_also_after_an_error() -> None:
    net = trained_a_little()
    before = snapshot(net)
    with reestimated_batchnorm(net, images(25), 8):
        assert not torch.equal(net[1].running_mean, before[0]["1.running_mean"])
    assert_same(before, snapshot(net))
    with pytest.raises(RuntimeError, match="boom"), reestimated_batchnorm(net, images(25), 8):
        raise RuntimeError("boom")
    assert_same(before, snapshot(net))
    with pytest.raises(RuntimeError), reestimated_batchnorm(net, torch.rand(8, 5, 7, 7), 8):  # the forward fails
        pass
    assert_same(before, snapshot(net))
    with pytest.raises(UserError, match="two training images"), reestimated_batchnorm(net, images(1), 8):
        pass


def test_a_model_without_batchnorm_is_not_even_run() -> None:
    with reestimated_batchnorm(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), images(4), 2):
        pass


# --- context, pairs ---------------------------------------------------------------------------------------------------


def test_samples_are_seeded_by_purpose_and_without_replacement() -> None:
    x = torch.arange(50.0)[:, None]
    ctx = context(nn.Identity(), x, torch.arange(50))
    a, labels = ctx.sample("test", 20, "a")
    assert torch.equal(a[:, 0].long(), labels)
    assert len(set(labels.tolist())) == 20
    assert torch.equal(ctx.sample("test", 20, "a")[0], a)
    assert not torch.equal(ctx.sample("test", 20, "b")[0], a)
    assert len(ctx.sample("test", 99, "a")[0]) == 50
    with pytest.raises(UserError, match="did you mean 'test'"):
        ctx.sample("tset", 5, "a")


def test_calibrated_context_fits_on_validation() -> None:
    z = 4 * torch.randn(400, 3, generator=gen())
    y = torch.multinomial((z / 2).softmax(1), 1, generator=gen(1))[:, 0]
    ctx = MeasureContext.calibrated(
        model=nn.Identity(), images={"val": z, "test": z}, labels={"val": y, "test": y}, num_classes=3, seed=1, chunk=7
    )
    assert ctx.temperature_converged
    assert ctx.temperature == pytest.approx(fit_temperature(z, y)[0])
    assert ctx.temperature == pytest.approx(2, rel=0.25)


@pytest.mark.parametrize("same", [True, False])
def test_pairs_are_distinct_uniform_and_of_their_kind(same: bool) -> None:
    y = torch.tensor([0, 1, 1, 2, 0, 1, 0, 3])
    kind = {(i, j) for i in range(8) for j in range(i) if (y[i] == y[j]) == same}
    everything = {tuple(sorted(p, reverse=True)) for p in draw_pairs(y, 1000, same, gen()).tolist()}
    assert everything == kind
    counts = dict.fromkeys(kind, 0)
    for seed in range(600):
        drawn = draw_pairs(y, 3, same, gen(seed)).tolist()
        assert len({frozenset(p) for p in drawn}) == 3
        for p in drawn:
            counts[tuple(sorted(p, reverse=True))] += 1
    expected = 1800 / len(kind)
    chi2 = sum((c - expected) ** 2 / expected for c in counts.values())
    assert chi2 < len(kind) + 5 * math.sqrt(2 * len(kind))


def test_pairs_of_many_images_need_no_list_of_all_pairs() -> None:
    y = torch.arange(30_000) % 10  # 45 and 405 million pairs
    for same in (True, False):
        pairs = draw_pairs(y, 5000, same, gen())
        assert len({frozenset(p) for p in pairs.tolist()}) == 5000
        assert ((y[pairs[:, 0]] == y[pairs[:, 1]]) == same).all()
        assert (pairs[:, 0] != pairs[:, 1]).all()
        assert pairs.double().mean() == pytest.approx(15_000, rel=0.03)
