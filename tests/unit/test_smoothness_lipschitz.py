"""Local Lipschitz lower bounds against singular values of Jacobians known in closed form or built row by row."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mstats
from toys import Fn, conv_net, gen, images, run
from toys import fn_context as context

from study.smoothness import estimate, local_lipschitz

SCALES = ("probabilities", "logits", "unit_logits")


@pytest.fixture(params=["exact", "by iteration"])
def way(request, monkeypatch) -> str:
    """Both ways of getting a norm; networks of few classes go the first."""
    if request.param != "exact":
        monkeypatch.setattr(local_lipschitz, "MOST_CLASSES", 0)
    return request.param


def test_spectral_norm_of_a_linear_network_is_its_largest_singular_value(way: str) -> None:
    w = torch.randn(4, 6, generator=gen())
    got = run(
        "local_lipschitz", context(Fn(lambda x: x @ w.T + 1, 4), torch.rand(40, 6, generator=gen(1))), tolerance=1e-7
    )
    expected = float(torch.linalg.svdvals(w.double())[0])
    assert got["lipschitz_logits_mean"].value == pytest.approx(expected, rel=1e-5)
    assert got["lipschitz_logits_mean_log"].value == pytest.approx(math.log(expected), rel=1e-5)
    assert got["lipschitz_logits_mean"].converged and got["lipschitz_logits_mean"].num_samples == 40


def test_spectral_norm_of_a_multiplicative_network(way: str) -> None:
    a, b = torch.randn(2, 4, 6, generator=gen())
    x = torch.rand(20, 6, generator=gen(1))
    rows = (x @ b.T)[:, :, None] * a + (x @ a.T)[:, :, None] * b
    net = context(Fn(lambda x: (x @ a.T) * (x @ b.T), 4), x)
    got = run("local_lipschitz", net, tolerance=1e-7, max_iterations=2000)["lipschitz_logits_mean"]
    assert got.value == pytest.approx(float(torch.linalg.svdvals(rows.double())[:, 0].mean()), rel=1e-4)


def test_every_scale_agrees_with_the_singular_values_of_the_whole_jacobian(way: str) -> None:
    net, x = conv_net().double().eval(), images(6).double()
    net.num_classes = 3

    def unit(z):
        centred = z - z.mean()
        return centred / centred.norm()

    scales = {"logits": lambda z: z, "probabilities": lambda z: z.softmax(-1), "unit_logits": unit}
    got = run("local_lipschitz", context(net, x, chunk=4), tolerance=1e-10, max_iterations=5000)
    for scale, f in scales.items():
        whole = [torch.autograd.functional.jacobian(lambda i: f(net(i[None])[0]), image).flatten(1) for image in x]
        norms = torch.stack([torch.linalg.svdvals(matrix)[0] for matrix in whole])
        assert got[f"lipschitz_{scale}_mean"].value == pytest.approx(float(norms.mean()), rel=1e-6), scale
        assert got[f"lipschitz_{scale}_mean"].stderr == pytest.approx(float(norms.std()) / math.sqrt(6), rel=1e-4)


def test_it_never_exceeds_the_frobenius_norm_nor_is_trusted_before_it_settles(way: str) -> None:
    net, x = conv_net(), images()
    net.num_classes = 3
    full = run("input_jacobian", context(net, x))
    bound = run("local_lipschitz", context(net, x))
    short = run("local_lipschitz", context(net, x), max_iterations=1)
    for scale in SCALES:
        assert 0 < bound[f"lipschitz_{scale}_mean"].value <= full[f"jacobian_{scale}_mean"].value * (1 + 1e-5)
        assert short[f"lipschitz_{scale}_mean"].value <= bound[f"lipschitz_{scale}_mean"].value * (1 + 1e-5)
        assert short[f"lipschitz_{scale}_mean"].converged == (way == "exact")


def test_equal_logits_have_no_unit_logits_and_the_rest_all_the_same() -> None:
    x = torch.rand(5, 2, generator=gen())
    net = Fn(lambda x: torch.stack([x[:, 0] - x[:, 0].detach(), x[:, 1] - x[:, 1].detach()], 1), 2)
    got = run("local_lipschitz", context(net, x))
    assert got["lipschitz_logits_mean"].value == pytest.approx(1)
    # p = 1/2 each: D = (I - 11^T / 2) / 2, of spectral norm 1/2
    assert got["lipschitz_probabilities_mean"].value == pytest.approx(0.5)
    assert math.isnan(got["lipschitz_unit_logits_mean"].value) and not got["lipschitz_unit_logits_mean"].converged


def test_a_saturated_prediction_is_not_rounding_noise(way: str) -> None:
    v, x = torch.tensor([30.0, -1.0]), torch.tensor([[1.0, 0.0]]).repeat(2, 1)
    got = run("local_lipschitz", context(Fn(lambda x: torch.stack([x @ v, 0 * x[:, 0]], 1), 2), x))
    expected = math.log(math.sqrt(2) * math.sqrt(901)) - 30 - 2 * math.log1p(math.exp(-30))
    assert got["lipschitz_probabilities_mean_log"].value == pytest.approx(expected, rel=1e-6)


def test_a_percentile_has_the_standard_error_of_the_bootstrap_and_covers() -> None:
    x = np.random.default_rng(0).gamma(2.0, size=100)
    got = estimate.quantile(torch.tensor(x), 0.95)
    assert got.value == np.sort(x)[94]
    resamples = np.sort(np.random.default_rng(1).choice(x, size=(20_000, 100)), axis=1)[:, 94]
    assert got.stderr == pytest.approx(resamples.std(), rel=0.03)
    assert got.stderr == pytest.approx(mstats.mjci(x, [0.945])[0], rel=0.1)
    # gamma(2): the 95th percentile is 4.7439; 1,000 repetitions, so a coverage of .95 is seen within .02
    samples = torch.tensor(np.random.default_rng(2).gamma(2.0, size=(1000, 400)))
    hits = [abs(e.value - 4.7439) < 1.96 * e.stderr for e in (estimate.quantile(s, 0.95) for s in samples)]
    assert np.mean(hits) == pytest.approx(0.935, abs=0.035)
