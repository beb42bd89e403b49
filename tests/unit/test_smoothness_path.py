"""Path statistics against constructed curves whose variation, differences and flips are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Fn, gen, run
from toys import fn_context as context

from study.smoothness import IncompleteError, estimate
from study.smoothness.pairs import draw_pairs


def test_two_class_logistic_paths_are_monotone() -> None:
    v = torch.tensor([5.0, -3.0, 2.0])
    net = Fn(lambda x: torch.stack([x @ v, 0 * x[:, 0]], 1), 2)
    x = torch.rand(60, 3, generator=gen())
    y = (x @ v <= 0).long()  # every prediction is right
    estimates = run("path", context(net, x, y), num_pairs=100)
    for kind in ("same", "different"):
        assert abs(estimates[f"path_{kind}_excess_variation"].value) < 1e-6
        assert abs(estimates[f"path_{kind}_excess_variation_probabilities"].value) < 1e-6
        assert not estimates[f"path_{kind}_excess_variation_log"].converged  # rounding has no logarithm worth telling
        assert estimates[f"path_{kind}_miss_rate"].value == 0
    assert estimates["path_different_label_flips"].value == 1
    assert estimates["path_same_label_flips"].value == 0
    assert estimates["path_different_length_ratio"].value == pytest.approx(1, abs=1e-6)
    assert estimates["path_different_excess_variation"].num_samples == 100


def test_the_linear_gap_is_a_mean_over_interior_points() -> None:
    """Logits (0, 4 ln 9 t (1 - t)): p rises from 1/2 to 9/10 and falls again, while its line stays at 1/2."""
    net = Fn(lambda x: torch.stack([0 * x[:, 0], 4 * math.log(9) * x[:, 0] * (1 - x[:, 0])], 1), 2)
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    with pytest.raises(IncompleteError, match="no same-class pair") as caught:
        run("path", context(net, x, torch.tensor([0, 1])), num_steps=32)
    gaps = [2 * (1 / (1 + 9 ** (-4 * i / 32 * (1 - i / 32))) - 0.5) for i in range(33)]
    assert sum(gaps) / 33 == pytest.approx(0.56758, abs=1e-5)  # with the ends, where the gap is 0 whatever the network
    found = caught.value.estimates["path_different_linear_gap"].value
    assert found == pytest.approx(sum(gaps) / 31, abs=1e-9) == pytest.approx(0.60419, abs=1e-5)


def log_odds(p: Tensor) -> Tensor:
    return torch.stack([p.log(), (1 - p).log()], 1)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_oscillating_path_has_the_known_variation(temperature: float) -> None:
    # p_0 = 1/2 + 0.4 sin(2 pi 3 t): six quarter-turns up and six down, variation 12 * 0.4 in each of two classes
    def fn(x: Tensor) -> Tensor:
        return temperature * log_odds(0.5 + 0.4 * torch.sin(6 * math.pi * x[:, 0]))

    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    ctx = context(Fn(fn, 2), x, torch.tensor([0, 1]), temperature=temperature)
    with pytest.raises(IncompleteError, match="no same-class pair") as caught:
        run("path", ctx, num_steps=24)
    estimates = caught.value.estimates
    assert not any("same" in name for name in estimates)
    assert estimates["path_different_excess_variation"].value == pytest.approx(2 * 12 * 0.4, abs=1e-9)
    assert not estimates["path_different_excess_variation"].converged  # one pair has no standard error
    if temperature != 1:
        assert estimates["path_different_excess_variation_probabilities"].value > 2 * 12 * 0.4 + 0.1
    # sin^2 averages 1/2 over the period: interior second differences are 4 sin^2(w h / 2) |sin| * 0.4, exactly
    t = np.linspace(0, 1, 25)
    curve = 0.4 * np.sin(6 * math.pi * t)
    second = 2 * np.abs(curve[2:] - 2 * curve[1:-1] + curve[:-2]).mean() * 24**2
    assert estimates["path_different_second_difference"].value == pytest.approx(second, rel=1e-9)
    assert estimates["path_different_linear_gap"].value == pytest.approx(2 * np.abs(curve[1:-1]).mean(), rel=1e-9)


def test_log_excess_variation_is_the_log_of_the_mean_not_the_mean_of_logs() -> None:
    # y = 0, 1 alternating on a line; a pair's excess is known from its own frequency: compare with numpy
    def curve(x: np.ndarray) -> np.ndarray:
        return 0.5 + 0.4 * np.sin(20 * x)

    x = torch.rand(40, 1, generator=gen(), dtype=torch.float64)
    y = torch.arange(40) % 2
    net = Fn(lambda x: log_odds(0.5 + 0.4 * torch.sin(20 * x[:, 0])), 2)
    ctx = context(net, x, y)
    estimates = run("path", ctx, num_pairs=150, num_steps=16)
    pairs = draw_pairs(y, 150, False, ctx.generator("path/different/test"))
    t = np.linspace(0, 1, 17)
    points = x.numpy()[pairs[:, 0], 0, None] * (1 - t) + x.numpy()[pairs[:, 1], 0, None] * t
    p = curve(points)
    variation, ends = 2 * np.abs(np.diff(p)).sum(1), 2 * np.abs(p[:, -1] - p[:, 0])
    excess = variation - ends
    value, log = estimates["path_different_excess_variation"], estimates["path_different_excess_variation_log"]
    assert value.value == pytest.approx(excess.mean(), rel=1e-9)
    assert log.value == pytest.approx(math.log(excess.mean()), rel=1e-9)
    shared = estimate.mean(torch.tensor(excess), pairs).stderr  # against a plain loop: test_smoothness_errors.py
    assert log.stderr == pytest.approx(shared / excess.mean(), rel=1e-9)
    assert shared > excess.std(ddof=1) / math.sqrt(150)
    assert log.converged
    assert estimates["path_different_length_ratio"].value == pytest.approx(variation.mean() / ends.mean(), rel=1e-9)


def test_linear_predictions_have_no_second_difference_gap_or_excess() -> None:
    weights = torch.tensor([[0.2, 0.1], [0.1, 0.3], [0.0, 0.05]], dtype=torch.float64)

    def fn(x: Tensor) -> Tensor:
        p = 0.2 + x @ weights.T
        return torch.cat([p, 1.5 - p.sum(1, keepdim=True)], 1).div(1.5).log()

    x = torch.rand(40, 2, generator=gen(), dtype=torch.float64)
    estimates = run("path", context(Fn(fn, 4), x), num_pairs=50)
    for kind in ("same", "different"):
        for name in ("excess_variation", "second_difference", "linear_gap"):
            assert abs(estimates[f"path_{kind}_{name}"].value) < 1e-10


def test_loss_bump_flips_and_misses_of_a_third_class_in_the_middle() -> None:
    # class 0 below 1/4, class 2 in the middle, class 1 above 3/4, each with probability 0.8
    def fn(x: Tensor) -> Tensor:
        label = torch.where(x[:, 0] < 0.25, 0, torch.where(x[:, 0] > 0.75, 1, 2))
        return torch.log(0.1 + 0.7 * nn.functional.one_hot(label, 3).double())

    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    with pytest.raises(IncompleteError) as caught:
        run("path", context(Fn(fn, 3), x, torch.tensor([0, 1])), num_steps=8)
    values = {name.removeprefix("path_different_"): e.value for name, e in caught.value.estimates.items()}
    assert values["label_flips"] == 2
    assert values["miss_rate"] == pytest.approx(5 / 7)  # t = 2/8 to 6/8 of the seven interior points
    # the loss is log 10 wherever both true classes have probability 0.1, and -log 0.8 at the ends
    assert values["loss_bump"] == pytest.approx(math.log(10) + math.log(0.8))
    assert values["excess_variation"] == pytest.approx(2 * 1.4 - 1.4)
