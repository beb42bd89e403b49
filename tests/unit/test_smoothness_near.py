"""Jacobian and noise statistics against closed forms and finite differences; seeds, chunks and devices."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toys import Fn, gen, run
from toys import fn_context as context


def conv_net(dtype=torch.float32, seed=1) -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Softplus(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    generator = gen(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    net.num_classes = 3
    return net.to(dtype).eval()


# --- input Jacobian ---------------------------------------------------------------------------------------------------


def test_jacobian_of_a_linear_network_is_its_matrix() -> None:
    w = torch.randn(3, 5, generator=gen())
    estimates = run("input_jacobian", context(Fn(lambda x: x @ w.T + 1, 3), torch.rand(40, 5, generator=gen(1))))
    norm = float(w.double().norm())
    assert estimates["jacobian_logits_mean"].value == pytest.approx(norm, rel=1e-6)
    assert estimates["jacobian_logits_mean_log"].value == pytest.approx(math.log(norm), rel=1e-6)
    assert estimates["jacobian_logits_rms"].value == pytest.approx(norm, rel=1e-6)
    assert estimates["jacobian_logits_mean"].stderr < 1e-6
    assert estimates["jacobian_logits_mean"].num_samples == 40


def test_jacobian_of_two_class_probabilities() -> None:
    # p = (s(m), s(-m)), m = v.x: both rows are p (1 - p) v, so the norm is sqrt(2) p (1 - p) |v|
    v = torch.tensor([1.5, -2.0, 0.5])
    x = torch.rand(30, 3, generator=gen())
    estimates = run("input_jacobian", context(Fn(lambda x: torch.stack([x @ v, 0 * x[:, 0]], 1), 2), x))
    p = torch.sigmoid(x.double() @ v.double())
    norms = math.sqrt(2) * p * (1 - p) * v.double().norm()
    assert estimates["jacobian_probabilities_mean"].value == pytest.approx(float(norms.mean()), rel=1e-5)
    assert estimates["jacobian_probabilities_mean_log"].value == pytest.approx(float(norms.log().mean()), rel=1e-5)
    assert estimates["jacobian_probabilities_rms"].value == pytest.approx(float((norms**2).mean().sqrt()), rel=1e-5)
    stderr = float(norms.std()) / math.sqrt(30)
    assert estimates["jacobian_probabilities_mean"].stderr == pytest.approx(stderr, rel=1e-4)


def test_jacobian_of_multiplicative_and_quadratic_networks() -> None:
    a, b = torch.randn(2, 4, 6, generator=gen())
    x = torch.rand(20, 6, generator=gen(1))
    # z = (Ax)(Bx): row k is (Bx)_k a_k + (Ax)_k b_k
    rows = (x @ b.T)[:, :, None] * a + (x @ a.T)[:, :, None] * b
    estimates = run("input_jacobian", context(Fn(lambda x: (x @ a.T) * (x @ b.T), 4), x))
    assert estimates["jacobian_logits_mean"].value == pytest.approx(float(rows.flatten(1).norm(dim=1).mean()), rel=1e-5)
    # z = (Ax)^2 / 2: row k is (Ax)_k a_k
    rows = (x @ a.T)[:, :, None] * a
    estimates = run("input_jacobian", context(Fn(lambda x: (x @ a.T) ** 2 / 2, 4), x))
    assert estimates["jacobian_logits_mean_log"].value == pytest.approx(
        float(rows.flatten(1).norm(dim=1).log().mean()), rel=1e-5
    )


def test_jacobian_agrees_with_finite_differences_on_every_scale() -> None:
    net = conv_net(torch.float64)
    x = torch.rand(3, 1, 6, 6, generator=gen(), dtype=torch.float64)

    def unit(z: np.ndarray) -> np.ndarray:
        centred = z - z.mean()
        return centred / np.sqrt((centred**2).sum())

    def softmax(z: np.ndarray) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum()

    scales = {"logits": lambda z: z, "probabilities": softmax, "unit_logits": unit}
    estimates = run("input_jacobian", context(net, x, chunk=2))
    for scale, f in scales.items():
        norms = []
        for image in x:
            total = 0.0
            for i in range(36):
                step = torch.zeros(36, dtype=torch.float64)
                step[i] = 1e-5
                with torch.no_grad():
                    plus, minus = (f(net((image + s * step.view(1, 6, 6))[None])[0].numpy()) for s in (1, -1))
                total += (((plus - minus) / 2e-5) ** 2).sum()
            norms.append(math.sqrt(total))
        assert estimates[f"jacobian_{scale}_mean"].value == pytest.approx(np.mean(norms), rel=1e-6)
        assert estimates[f"jacobian_{scale}_mean_log"].value == pytest.approx(np.mean(np.log(norms)), abs=1e-6)
        assert estimates[f"jacobian_{scale}_rms"].value == pytest.approx(np.sqrt(np.mean(np.square(norms))), rel=1e-6)


def test_jacobian_of_a_saturated_prediction_is_not_rounding_noise() -> None:
    # float32 probabilities would be exactly 1 and 0 here
    v = torch.tensor([30.0, -1.0])
    x = torch.tensor([[1.0, 0.0]]).repeat(2, 1)
    estimates = run("input_jacobian", context(Fn(lambda x: torch.stack([x @ v, 0 * x[:, 0]], 1), 2), x))
    expected = math.log(math.sqrt(2) * math.sqrt(901)) - 30 - 2 * math.log1p(math.exp(-30))
    assert estimates["jacobian_probabilities_mean_log"].value == pytest.approx(expected, rel=1e-6)


def test_unit_logit_statistics_ignore_the_size_of_logits() -> None:
    net, x = conv_net(), torch.rand(30, 1, 6, 6, generator=gen())
    scaled = Fn(lambda x: 7 * net(x) + 3, 3)
    keys = {
        "input_jacobian": "jacobian_unit_logits_mean_log",
        "path": "path_different_excess_variation_unit_logits",
    }
    for name, key in keys.items():
        one, seven = run(name, context(net, x))[key], run(name, context(scaled, x))[key]
        assert seven.value == pytest.approx(one.value, rel=1e-4)
    plain, larger = (run("input_jacobian", context(n, x))["jacobian_logits_mean"].value for n in (net, scaled))
    assert larger == pytest.approx(7 * plain, rel=1e-5)


def test_constant_network_has_no_log_jacobian() -> None:
    net = Fn(lambda x: torch.stack([x[:, 0] * 0 + 1, x[:, 0] * 0], 1), 2)
    estimates = run("input_jacobian", context(net, torch.rand(5, 2, generator=gen())))
    assert estimates["jacobian_logits_mean"].value == 0
    assert estimates["jacobian_logits_mean"].converged
    assert math.isnan(estimates["jacobian_unit_logits_mean_log"].value)
    assert not estimates["jacobian_unit_logits_mean_log"].converged


# --- noise stability --------------------------------------------------------------------------------------------------


def test_flip_rate_of_a_linear_boundary() -> None:
    w = torch.tensor([3.0, -4.0, 0.0, 1.0])
    x = 0.1 * torch.rand(200, 4, generator=gen())
    net = Fn(lambda x: torch.stack([x @ w, 0 * x[:, 0]], 1), 2)
    estimates = run("noise_stability", context(net, x, chunk=77), sigmas=[4, 16], num_draws=200, num_samples=200)
    for sigma in (4, 16):
        expected = torch.special.ndtr(-(x @ w).abs().double() / (sigma / 255 * w.double().norm()))
        got = estimates[f"noise_{sigma}_flip_rate"]
        # the images are the same on both sides: what differs is the noise of 200 draws an image
        noise = float((expected * (1 - expected)).sum().sqrt()) / 200 / math.sqrt(200)
        assert abs(got.value - float(expected.mean())) < 4.5 * noise
        assert got.stderr == pytest.approx(float(expected.std()) / math.sqrt(200), rel=0.1)
    assert estimates["noise_4_flip_rate"].value < estimates["noise_16_flip_rate"].value


def test_flip_rate_is_within_its_own_standard_error_over_images() -> None:
    # one draw an image and many images: E over x ~ U(0, 1) of Phi(-|x - 1/2| / s)
    n, s = 4000, 64 / 255
    x = torch.rand(n, 1, generator=gen(3))
    net = Fn(lambda x: torch.cat([x - 0.5, 0.5 - x], 1), 2)
    got = run("noise_stability", context(net, x, chunk=1000), sigmas=[64], num_draws=1, num_samples=n)
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    expected = float(torch.special.ndtr(-(grid - 0.5).abs() / s).mean())
    estimate = got["noise_64_flip_rate"]
    assert abs(estimate.value - expected) < 4 * estimate.stderr
    assert estimate.stderr == pytest.approx(math.sqrt(expected * (1 - expected) / n), rel=0.05)


def test_small_noise_l1_of_a_linear_network() -> None:
    # p moves by 2 * |p (1 - p) w.e| in L1 to first order, and E|N(0, 1)| = sqrt(2 / pi)
    w = torch.tensor([1.0, -2.0, 2.0])
    net = Fn(lambda x: torch.stack([x @ w, 0 * x[:, 0]], 1), 2)
    x = torch.zeros(500, 3)
    estimates = run("noise_stability", context(net, x, temperature=2.0), sigmas=[1], num_draws=20, num_samples=500)
    expected = 2 * 0.25 * 3 / 255 * math.sqrt(2 / math.pi)
    for name, value in (("noise_1_l1", expected), ("noise_1_l1_tempered", expected / 2)):
        assert abs(estimates[name].value - value) < 4 * estimates[name].stderr < 0.1 * value


def test_noise_is_not_clipped() -> None:
    net = Fn(lambda x: torch.stack([-x[:, 0], 0 * x[:, 0]], 1), 2)  # flips where a black pixel gets darker than black
    got = run("noise_stability", context(net, torch.full((1000, 1), 1e-9)), sigmas=[64], num_draws=1)
    assert got["noise_64_flip_rate"].value == pytest.approx(0.5, abs=0.07)


def test_unconverged_temperature_marks_tempered_estimates_only() -> None:
    net, x = conv_net(), torch.rand(30, 1, 6, 6, generator=gen())
    ctx = context(net, x, temperature_converged=False)
    flags = {n: e.converged for name in ("noise_stability", "path") for n, e in run(name, ctx).items()}
    assert not flags["noise_4_l1_tempered"]
    assert not flags["path_different_excess_variation_log"]
    assert not flags["path_different_length_ratio"]
    assert flags["noise_4_l1"]
    assert flags["path_different_excess_variation_unit_logits"]
    assert flags["path_same_label_flips"]


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others() -> None:
    net, x = conv_net(), torch.rand(30, 1, 6, 6, generator=gen())
    first, again = (run("path", context(net, x), num_pairs=20) for _ in range(2))
    assert first == again
    assert run("path", context(net, x, seed=6), num_pairs=20) != first
    ctx = context(net, x)
    run("noise_stability", ctx)
    run("input_jacobian", ctx)
    assert run("path", ctx, num_pairs=20) == first  # whatever ran before


def test_chunk_changes_results_by_rounding_only() -> None:
    net, x = conv_net(), torch.rand(30, 1, 6, 6, generator=gen())
    for name in ("path", "noise_stability", "input_jacobian"):
        small, large = run(name, context(net, x, chunk=1)), run(name, context(net, x, chunk=500))
        for key, value in small.items():
            assert large[key].value == pytest.approx(value.value, rel=2e-3, abs=1e-5), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_numbers_of_the_cpu() -> None:
    net, x = conv_net(), torch.rand(30, 1, 6, 6, generator=gen())
    for name in ("path", "noise_stability", "input_jacobian"):
        cpu = run(name, context(net.cpu(), x))
        gpu = run(name, context(net.cuda(), x.cuda(), (torch.arange(30) % 3).cuda()))
        for key, value in cpu.items():
            assert gpu[key].value == pytest.approx(value.value, rel=2e-3, abs=1e-5), key
