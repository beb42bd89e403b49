"""Accuracy under noise: linear networks, whose accuracy is known, and the same passes as noise stability's."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import norm
from toys import Fn, conv_context, gated_net, gen, images, run
from toys import fn_context as context

from study.smoothness import in_turn

W = torch.tensor([3.0, -4.0, 0.0, 1.0])


def linear() -> Fn:
    return Fn(lambda x: torch.stack([x @ W, 0 * x[:, 0]], 1), 2)


def margins(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Distances to the boundary, positive on the label's side."""
    return (x.double() @ W.double() * (1 - 2 * y)).numpy() / float(W.double().norm())


def sample(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images around the boundary, nine of ten on their label's side."""
    x = 0.3 * torch.randn(n, 4, generator=gen(seed))
    right = torch.rand(n, generator=gen(seed + 1)) < 0.9
    return x, ((x @ W <= 0) == right).long()


def known(m: np.ndarray, sigma: float) -> np.ndarray:
    return norm.cdf(m / (sigma / 255)) if sigma else (m > 0).astype(float)


def test_accuracy_of_a_linear_network_and_its_area() -> None:
    (x, y), draws = sample(300), 100
    found = run("noise_accuracy", context(linear(), x, y, chunk=77), sigmas=[64, 16], num_draws=draws)
    assert list(found) == ["noise_0_accuracy", "noise_64_accuracy", "noise_16_accuracy", "noise_accuracy_area"]
    m = margins(x, y)
    assert found["noise_0_accuracy"].value == (m > 0).mean()
    p = {sigma: known(m, sigma) for sigma in (0, 16, 64)}
    for sigma in (16, 64):
        got = found[f"noise_{sigma}_accuracy"]
        # the images are the same on both sides: what differs is the noise of a hundred draws an image
        noise = math.sqrt((p[sigma] * (1 - p[sigma])).sum() / draws) / 300
        assert abs(got.value - p[sigma].mean()) < 4 * noise
        # an image's value varies by its own chance, and by its draws about it: they are not as many images
        spread = p[sigma].var(ddof=1) + (p[sigma] * (1 - p[sigma])).mean() / draws
        assert got.stderr == pytest.approx(math.sqrt(spread / 300), rel=0.02)
        assert got.converged and got.num_samples == 300
    area = found["noise_accuracy_area"]
    values = [found[f"noise_{sigma}_accuracy"].value for sigma in (0, 16, 64)]
    assert area.value == pytest.approx(np.trapezoid(values, [0, 16, 64]) / 64, abs=1e-12)
    # by image first, then over images
    by_image = np.trapezoid([found[f"noise_{sigma}_accuracy"].samples for sigma in (0, 16, 64)], [0, 16, 64], axis=0)
    assert area.stderr == pytest.approx(by_image.std(ddof=1) / 64 / math.sqrt(300), rel=1e-9)


def test_area_with_many_sigmas_is_the_integral() -> None:
    x, y = sample(400, seed=3)
    found = run("noise_accuracy", context(linear(), x, y), sigmas=[float(s) for s in range(2, 65, 2)], num_draws=30)
    m = margins(x, y)
    expected = integrate.quad(lambda sigma: known(m, sigma).mean(), 0, 64, limit=200)[0] / 64
    assert found["noise_accuracy_area"].value == pytest.approx(expected, abs=0.004)


def test_noise_that_does_no_harm_has_an_area_of_one() -> None:
    x = torch.tensor([[100.0, 0, 0, 0], [-100.0, 0, 0, 0]]).repeat(10, 1)
    found = run("noise_accuracy", context(linear(), x, torch.tensor([0, 1] * 10)))
    assert {value.value for value in found.values()} == {1.0} and all(value.converged for value in found.values())


@pytest.mark.parametrize(
    ("right", "n", "converged"),
    [(0.5, 100, False), (0.59, 100, False), (0.61, 100, True), (1.0, 2, False), (1.0, 6, True)],
)
def test_a_network_that_guesses_has_nothing_that_noise_could_take(right, n, converged) -> None:
    y = torch.arange(n) % 2
    said = torch.where(torch.arange(n) < round(right * n), y, 1 - y)
    net = Fn(lambda x: torch.stack([-x[:, 0], x[:, 0]], 1), 2)
    found = run("noise_accuracy", context(net, (2.0 * said - 1)[:, None], y), sigmas=[1])
    assert {value.converged for value in found.values()} == {converged}


def test_guessing_is_naming_the_most_frequent_class() -> None:
    y = (torch.arange(100) < 80).long()  # naming 1 always is right for 80
    net = Fn(lambda x: torch.stack([-x[:, 0], x[:, 0]], 1), 2)
    x = (2.0 * y - 1)[:, None].clone()
    x[:13] *= -1
    assert not run("noise_accuracy", context(net, x, y), sigmas=[1])["noise_1_accuracy"].converged  # 87 of 100
    x[:6] *= -1
    assert run("noise_accuracy", context(net, x, y), sigmas=[1])["noise_1_accuracy"].converged  # 93


def test_noise_that_leaves_a_guess_is_a_finding() -> None:
    x = torch.tensor([[1e-3, 0, 0, 0], [-1e-3, 0, 0, 0]]).repeat(500, 1)
    found = run("noise_accuracy", context(linear(), x, torch.tensor([0, 1] * 500)), sigmas=[64])
    assert found["noise_64_accuracy"].value == pytest.approx(0.5, abs=0.05) and found["noise_64_accuracy"].converged


def test_noise_is_passed_once_for_both_statistics() -> None:
    assert in_turn(["noise_stability", "noise_accuracy"]) == ["noise_accuracy", "noise_stability"]
    seen = []
    net = gated_net()
    net.register_forward_hook(lambda module, given, z: seen.append(len(z)))
    settings = {"num_samples": 20, "sigmas": [4, 16], "num_draws": 2}
    ctx = conv_context(net, images(40), chunk=16)
    run("noise_accuracy", ctx, **settings)
    first = sum(seen)
    more = settings | {"sigmas": [4, 16, 64], "num_draws": 3}
    shared = run("noise_stability", ctx, **more)
    # anew: sigma 64 in two draws, and all three in the third
    assert sum(seen) - first == 5 * 20
    alone = run("noise_stability", conv_context(net, images(40), chunk=16), **more)
    assert shared == alone
    seen.clear()
    run("noise_stability", ctx, **settings | {"num_samples": 21})  # other images
    assert sum(seen) == 5 * 21


def coverage(num_studies: int, n: int = 200) -> dict[str, tuple[float, float]]:
    """Mean value, and the share of 95 % intervals that hold the truth, of samples of ``n`` images from one population."""
    truth = margins(*sample(400_000, seed=10**6))
    expected = {f"noise_{sigma}_accuracy": known(truth, sigma).mean() for sigma in (0, 16, 64)}
    expected["noise_accuracy_area"] = np.trapezoid(list(expected.values()), [0, 16, 64]) / 64
    held = dict.fromkeys(expected, 0.0)
    for study in range(num_studies):
        found = run(
            "noise_accuracy", context(linear(), *sample(n, seed=2 * study), seed=study, chunk=1000), sigmas=[16, 64]
        )
        for name, value in expected.items():
            held[name] += (abs(found[name].value - value) <= 1.96 * found[name].stderr) / num_studies
    return {name: (expected[name], share) for name, share in held.items()}


def test_intervals_over_images_hold_the_truth_as_often_as_they_say() -> None:
    assert all(0.91 < share < 0.985 for _, share in coverage(400).values())
