"""Input curvature: closed form on a linear softmax network, float64 finite differences on one that multiplies."""

import numpy as np
import pytest
import torch
from toys import Fn, fn_context, gen, run

from study.errors import UserError
from study.smoothness import parse_settings

K, PIXELS = 3, 4


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(gradient, x, steps):
    """Mean curvature by the definition, from a float64 gradient (N, pixels) -> (N, pixels)."""
    g = gradient(x)
    z = np.sign(g) / np.linalg.norm(np.sign(g), axis=1, keepdims=True)
    return {h: np.linalg.norm(gradient(x + h * z) - g, axis=1) / h for h in steps}


def images(n=20):
    return torch.rand(n, 1, 2, 2, generator=gen(1))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_linear_softmax_in_closed_form(temperature):
    weight = torch.randn(K, PIXELS, generator=gen(2)) * 3
    x = images()
    y = (torch.arange(len(x)) % K).numpy()
    found = run("input_curvature", fn_context(Fn(lambda x: x.flatten(1) @ weight.T, K), x, temperature=temperature))
    w, flat = weight.double().numpy(), x.flatten(1).double().numpy()
    for suffix, t in (("", 1.0), ("_tempered", temperature)):
        truth = expected(lambda v, t=t: (softmax(v @ w.T / t) - np.eye(K)[y]) @ w / t, flat, (0.1, 0.5, 1.0))
        for step, values in truth.items():
            mean = found[f"curvature_{step:g}{suffix}_mean"]
            assert mean.value == pytest.approx(values.mean(), rel=1e-4) and mean.converged
            assert mean.stderr == pytest.approx(values.std(ddof=1) / len(x) ** 0.5, rel=1e-3)
            log = found[f"curvature_{step:g}{suffix}_mean_log"]
            assert log.value == pytest.approx(np.log(values).mean(), abs=1e-3)


def test_a_multiplicative_network_by_finite_differences():
    a, b = (torch.randn(K, PIXELS, generator=gen(seed), dtype=torch.float64) for seed in (3, 4))
    x = images(8).double()
    y = torch.arange(len(x)) % K
    net = Fn(lambda x: (x.flatten(1).to(a) @ a.T) * (x.flatten(1).to(b) @ b.T), K)
    an, bn = a.numpy(), b.numpy()

    def loss(v):
        z = (v @ an.T) * (v @ bn.T)
        return np.log(np.exp(z).sum(-1)) - z[np.arange(len(v)), y.numpy()]

    def gradient(v, step=1e-5):
        shifts = step * np.eye(PIXELS)
        return np.stack([(loss(v + s) - loss(v - s)) / (2 * step) for s in shifts], 1)

    found = run("input_curvature", fn_context(net, x, y), steps=[0.2, 0.5])
    for step, values in expected(gradient, x.flatten(1).numpy(), (0.2, 0.5)).items():
        assert found[f"curvature_{step:g}_mean"].value == pytest.approx(values.mean(), rel=1e-5)


def test_a_loss_that_is_linear_in_the_image_has_none():
    """Logits that do not see the image: no gradient, no direction, curvature 0 and no logarithm of it."""
    found = run("input_curvature", fn_context(Fn(lambda x: x.flatten(1)[:, :1] * 0 + torch.arange(3.0), K), images()))
    assert found["curvature_0.5_mean"].value == 0 and found["curvature_0.5_mean"].converged
    assert not found["curvature_0.5_mean_log"].converged


def test_chunks_and_an_uncalibrated_temperature():
    weight = torch.randn(K, PIXELS, generator=gen(2))
    whole, cut = (
        run("input_curvature", fn_context(Fn(lambda x: x.flatten(1) @ weight.T, K), images(), chunk=chunk))
        for chunk in (64, 3)
    )
    assert {name: e.value for name, e in whole.items()} == pytest.approx({name: e.value for name, e in cut.items()})
    context = fn_context(Fn(lambda x: x.flatten(1) @ weight.T, K), images(), temperature_converged=False)
    found = run("input_curvature", context)
    assert all(e.converged != ("tempered" in name) for name, e in found.items())


def test_a_step_twice_is_refused():
    with pytest.raises(UserError, match="holds a value twice"):
        parse_settings("input_curvature", {"steps": [0.5, 0.5]})
