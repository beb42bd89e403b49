"""Adaptive sharpness against closed forms, all corners of a box, and what must not change it."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import norm as normal
from torch import nn
from toys import fn_context, gen, run

from study.errors import UserError
from study.smoothness import parse_settings

PIXELS = 6
RHOS = [0.01, 0.3]


class Logistic(nn.Module):
    """z = (w . x, 0): two classes."""

    num_classes = 2

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.stack([x.flatten(1) @ self.weight, torch.zeros(len(x), dtype=x.dtype)], 1)


def one_image(dtype=torch.float64):
    """A weight and one image, four times over: margin, sum of |w x|, and its Euclidean norm are known."""
    weight = torch.randn(PIXELS, generator=gen(2), dtype=torch.float64).to(dtype)
    x = torch.rand(1, 1, 2, 3, generator=gen(3), dtype=torch.float64).to(dtype)
    parts = (weight * x.flatten()).double()
    return Logistic(weight), x.repeat(4, 1, 1, 1), float(parts.sum()), parts.abs()


def softplus(v):
    return np.logaddexp(0, v)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_worst_case_of_one_image_in_closed_form(norm):
    # the loss falls with the margin, which the ball lets fall by rho times the dual norm of w x
    model, x, margin, parts = one_image()
    context = fn_context(model, x, torch.zeros(4, dtype=torch.long))
    found = run("adaptive_sharpness", context, split="test", norm=norm, rhos=RHOS, num_draws=2)
    for rho in RHOS:
        reach = rho * float(parts.sum() if norm == "linf" else parts.norm())
        got = found[f"sharpness_{norm}_{rho:g}_max"]
        assert got.value == pytest.approx(softplus(reach - margin) - softplus(-margin), rel=1e-6) and got.converged
        assert got.num_samples == 4 and got.stderr == pytest.approx(0, abs=1e-12)


def test_average_case_of_one_image_by_integration():
    # the margin is normal with standard deviation rho norm(w x)
    model, x, margin, parts = one_image()
    context = fn_context(model, x, torch.zeros(4, dtype=torch.long))
    found = run("adaptive_sharpness", context, split="test", average_rhos=RHOS, num_draws=1000, num_steps=1)
    for rho in RHOS:
        spread = rho * float(parts.norm())

        def expected(power, spread=spread):
            rise = lambda v: softplus(-margin - spread * v) - softplus(-margin)  # noqa: E731
            return integrate.quad(lambda v: rise(v) ** power * normal.pdf(v), -9, 9)[0]

        got, mean = found[f"sharpness_{rho:g}_mean"], expected(1)
        assert abs(got.value - mean) < 4 * got.stderr
        assert got.stderr == pytest.approx(math.sqrt((expected(2) - mean**2) / 1000), rel=0.1)
        assert got.num_samples == 1000


def regression(dtype=torch.float64):
    """Softmax regression on two pixels: a convex loss in six weights, whose maximum over a box is at a corner."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False)).to(dtype)
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(3, 2, generator=gen(4), dtype=torch.float64))
    model.num_classes = 3
    return model, torch.rand(20, 1, 1, 2, generator=gen(5), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("chunk", [64, 3])
def test_worst_case_is_that_of_the_worst_corner(chunk):
    model, x = regression()
    y = (torch.arange(20) % 3).numpy()
    weight, flat = model[1].weight.detach().numpy(), x.flatten(1).numpy()

    def loss(w):
        z = flat @ w.T
        return np.log(np.exp(z).sum(1)) - z[np.arange(20), y]

    found = run("adaptive_sharpness", fn_context(model, x, chunk=chunk), split="test", rhos=RHOS)
    for rho in RHOS:
        corners = [weight * (1 + rho * np.reshape(signs, (3, 2))) for signs in itertools.product((-1, 1), repeat=6)]
        rises = [loss(w) - loss(weight) for w in corners]
        worst = max(rises, key=np.mean)
        got = found[f"sharpness_linf_{rho:g}_max"]
        assert got.value == pytest.approx(worst.mean(), rel=1e-9) and got.converged
        assert got.stderr == pytest.approx(worst.std(ddof=1) / math.sqrt(20), rel=1e-9)


def two_layers(seed=6):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=gen(seed), dtype=torch.float64))
    model.num_classes = 3
    return model


def test_a_factor_that_moves_between_layers_changes_nothing():
    model, x = two_layers(), torch.rand(20, 1, 2, 2, generator=gen(7)).double()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[1].weight *= 8
        other[1].bias *= 8
        other[3].weight /= 8
    for norm in ("linf", "l2"):
        plain, moved = (run("adaptive_sharpness", fn_context(m, x), split="test", norm=norm) for m in (model, other))
        for name, value in plain.items():
            assert moved[name].value == pytest.approx(value.value, rel=1e-9), name
    # and on the scale of unit logits a factor on the logits changes nothing either
    with torch.no_grad():
        other[3].weight *= 5
        other[3].bias *= 5
    plain, louder = (run("adaptive_sharpness", fn_context(m, x), split="test") for m in (model, other))
    for name, value in plain.items():
        assert (louder[name].value == pytest.approx(value.value, rel=1e-9)) == ("unit_logits" in name), name


def test_more_room_is_never_less_sharp_and_few_steps_are_not_trusted():
    model, x = two_layers(), torch.rand(20, 1, 2, 2, generator=gen(7)).double()
    found = run("adaptive_sharpness", fn_context(model, x), split="test", rhos=[0.001, 0.01, 0.1])
    values = [found[f"sharpness_linf_{rho}_max"].value for rho in ("0.001", "0.01", "0.1")]
    assert 0 < values[0] < values[1] < values[2]
    # to first order the worst case is rho times the l1 norm of w times the gradient
    y = torch.arange(20) % 3
    slopes = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    slope = sum(float((g * p).detach().abs().sum()) for g, p in zip(slopes, model.parameters(), strict=True))
    assert values[0] == pytest.approx(0.001 * slope, rel=0.02)
    assert not run("adaptive_sharpness", fn_context(model, x), split="test", num_steps=1)[
        "sharpness_linf_0.008_max"
    ].converged


def test_weights_that_are_zero_do_not_move():
    model, x = two_layers(), torch.rand(5, 1, 2, 2, generator=gen(7)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = run("adaptive_sharpness", fn_context(model, x), split="test")
    assert all(e.value == 0 and e.converged for e in found.values())


def test_what_cannot_be_measured_is_named():
    class Brittle(nn.Module):
        num_classes = 3

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x.flatten(1)[:, :3] * self.weight / (self.weight == 1)

    model, x = two_layers(), torch.rand(5, 1, 2, 2, generator=gen(7)).double()
    with pytest.raises(UserError, match="not finite"):
        run("adaptive_sharpness", fn_context(Brittle(), x), split="test")
    model.requires_grad_(False)
    with pytest.raises(UserError, match="no trained parameters"):
        run("adaptive_sharpness", fn_context(model, x), split="test")
    with pytest.raises(UserError, match=r"unknown norm 'l1' .did you mean 'l2'"):
        parse_settings("adaptive_sharpness", {"norm": "l1"})
    with pytest.raises(UserError, match="'rhos' holds a value twice"):
        parse_settings("adaptive_sharpness", {"rhos": [0.1, 0.1]})
