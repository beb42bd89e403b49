"""Ceilings of three rank measures against scipy and simulation; what noise does to planted agreement; per image and layer."""

import math

import numpy as np
import pytest
import torch
from gated import CHANNELS, context, images, toy
from scipy import stats

from study.smoothness import Estimate, measure, parse_settings
from study.smoothness.attention_importance import _over_images, _ratio, _within_images
from study.smoothness.clamped import Layer
from study.smoothness.rank_correlation import (
    ceilings,
    copula_correlation,
    kendall,
    num_top,
    spearman,
    top_overlap,
    without_noise,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rho", [0.3, 0.8, 0.99])
@pytest.mark.parametrize("num_units", [4, 16, 60])
def test_expected_agreement_is_that_of_normal_pairs(num_units: int, rho: float) -> None:
    """scipy's rank correlations of 4,000 draws of U pairs from scipy's bivariate normal: all three within four errors."""
    drawn = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]], seed=1).rvs((4000, num_units))
    first, second = stats.rankdata(drawn[..., 0], axis=1), stats.rankdata(drawn[..., 1], axis=1)
    by_draw = 12 * ((first - (num_units + 1) / 2) * (second - (num_units + 1) / 2)).mean(1) / (num_units**2 - 1)
    assert by_draw[:3] == pytest.approx([stats.spearmanr(*drawn[i].T).statistic for i in range(3)])
    expected = float(by_draw.mean())
    assert copula_correlation(expected, num_units) == pytest.approx(rho, abs=0.03)
    found = ceilings(expected, num_units, gen())
    tau = [stats.kendalltau(*pairs.T).statistic for pairs in drawn[:400]]
    assert found["kendall"] == pytest.approx(np.mean(tau), abs=4 * np.std(tau) / 20 + 0.01)
    k = num_top(num_units)
    top = [len(set(np.argsort(-a)[:k]) & set(np.argsort(-b)[:k])) / k for a, b in np.moveaxis(drawn, 2, 1)]
    assert found["top10"] == pytest.approx(np.mean(top), abs=4 * np.std(top) / math.sqrt(4000) + 0.012)


def test_of_many_units_the_ceilings_are_those_of_the_copula() -> None:
    """Spearman 6/pi asin(rho/2), Kendall 2/pi asin(rho), overlap P(Y > t | X > t) by scipy."""
    rho, num_units = 0.7, 2000
    found = ceilings(6 / math.pi * math.asin(rho / 2), num_units, gen())
    assert found["kendall"] == pytest.approx(2 / math.pi * math.asin(rho), abs=1e-3)
    t = stats.norm.isf(0.1)
    both = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([-t, -t])
    assert found["top10"] == pytest.approx(both / 0.1, abs=0.01)


def test_at_the_ends() -> None:
    for num_units in (4, 16, 100):
        assert ceilings(1.0, num_units, gen()) == pytest.approx({"spearman": 1.0, "kendall": 1.0, "top10": 1.0})
        none = ceilings(0.0, num_units, gen())
        assert none == pytest.approx({"spearman": 0, "kendall": 0, "top10": num_top(num_units) / num_units}, abs=0.01)


def layer_of(gate: torch.Tensor, activation: torch.Tensor) -> Layer:
    blank = torch.nn.Identity()
    return Layer(
        name="", module=blank, gate_module=blank, by_channel=True, gate=gate, activation=activation,
        mean_gate=gate[:1], mean_map=gate[:1],
    )  # fmt: skip


def test_one_truth_seen_through_noise_reaches_all_three_ceilings() -> None:
    """Gate and importance are the same numbers with independent noise an image: the mean agreement is the mean ceiling."""
    settings = parse_settings("attention_importance", {"num_shuffles": 4, "num_halves": 10})
    gaps = {name: [] for name in ("spearman", "kendall", "top10")}
    for seed in range(12):
        generator = gen(seed)
        truth = torch.randn(24, generator=generator, dtype=torch.float64)
        gate, importance = truth + 5 * torch.randn((2, 64, 24), generator=generator, dtype=torch.float64)
        found = _over_images(layer_of(gate, truth.expand_as(gate)), importance, settings, seed)
        for measure_name, gap in gaps.items():
            ceiling = "ceiling" if measure_name == "spearman" else f"{measure_name}_ceiling"
            gap.append(found[measure_name].value - found[ceiling].value)
        assert found["ceiling"].value < 0.95
    for measure_name, gap in gaps.items():
        assert abs(np.mean(gap)) < 3 * np.std(gap) / math.sqrt(len(gap)) + 0.01, measure_name


@pytest.mark.parametrize("num_units", [8, 16, 32])
@pytest.mark.parametrize(("kept", "least"), [(0.75, 0.6), (0.9, 0.8)])
def test_the_ratio_is_the_agreement_without_noise(num_units: int, kept: float, least: float) -> None:
    """Gate and importance correlate at .8 and are both seen with this reliability: the ratio is that of the truth."""
    settings, found, truth = parse_settings("attention_importance", {"num_shuffles": 2, "num_halves": 40}), [], []
    for seed in range(60):
        generator, images = gen(seed), []
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        gate, other = draw(2, num_units)
        for values in (gate, importance := 0.8 * gate + 0.6 * other):
            images.append(values + math.sqrt(32 * (1 / kept - 1)) * draw(32, num_units))
        truth.append(float(spearman(gate[None], importance[None])))
        each = _over_images(layer_of(images[0], images[0]), images[1], settings, seed)
        found.append(_ratio(each["spearman"], each["ceiling"], [num_units]))
    known = [(estimate.value, value) for estimate, value in zip(found, truth, strict=True) if estimate.converged]
    gap = np.array([value - true for value, true in known])
    assert len(known) > least * len(found)
    assert abs(gap.mean()) < 0.02 + 2 * gap.std() / math.sqrt(len(gap))


def test_without_noise_nothing_is_divided_and_too_much_noise_is_not_estimable() -> None:
    values = torch.tensor([-1.0, -0.3, 0.0, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(without_noise(values, 1.0, [8, 16]), values)
    rho, ceiling = 0.8, 0.55  # in closed form, of many units: 6 / pi asin(rho / 2)
    seen, wanted, most = (6 / math.pi * math.asin(r / 2) for r in (rho * ceiling, rho, ceiling))
    (got,) = without_noise(torch.tensor([seen], dtype=torch.float64), most, [10**6])
    assert float(got) == pytest.approx(wanted, abs=1e-4)
    assert float(without_noise(torch.tensor([0.9]).double(), 0.6, [16])) > 1
    for value, known in ((0.59, False), (0.61, True)):
        spread = torch.linspace(0.2, 0.4, 50, dtype=torch.float64)
        found = Estimate(0.3, 0.1, 30, True, resamplings=spread), Estimate(value, math.nan, 30, True)
        assert _ratio(*found, [16]).converged == known and _ratio(*found, [16]).stderr > 0.05


def test_each_measure_has_null_ceiling_control_and_its_value_within_an_image() -> None:
    model, (x, y) = toy(), images()
    ctx = context(model, x, y)
    found = measure("attention_importance", parse_settings("attention_importance", {"num_samples": 30}), ctx)
    for kind in ("zero", "mean", "taylor"):
        for names in (("spearman", "spearman_null", "ceiling", "activation", "per_image"),
                      *((m, *(f"{m}_{part}" for part in ("null", "ceiling", "activation", "per_image")))
                        for m in ("kendall", "top10"))):  # fmt: skip
            for name in names:
                assert math.isfinite(found[f"attention_importance_{name}_{kind}"].value), name
            for name in names[:4]:
                layer, over = (found[f"attention_importance_{where}{name}_{kind}"] for where in ("layer1_", ""))
                assert layer.value == over.value
    # kept: the agreement of each image and layer, whose mean the estimate is
    table = ctx.kept["by_image"]
    assert set(table) == {"image", "layer"} | {f"{m}_{k}" for m in ("spearman", "kendall", "top10")
                                              for k in ("zero", "mean", "taylor")}  # fmt: skip
    assert table["image"].tolist() == list(range(30)) and set(table["layer"].tolist()) == {1}
    for column, name in (("spearman_zero", "per_image_zero"), ("top10_taylor", "top10_per_image_taylor")):
        assert float(table[column].double().mean()) == pytest.approx(
            found[f"attention_importance_{name}"].value, abs=1e-6
        )


def test_within_images_the_control_is_the_activation_and_the_null_is_chance() -> None:
    generator = gen(2)
    gate, activation = torch.randn((2, 400, CHANNELS), generator=generator, dtype=torch.float64)
    found = _within_images(layer_of(gate, activation), activation + 0.0, 1)
    for measure_name, agree in (("spearman", spearman), ("kendall", kendall), ("top10", top_overlap)):
        prefix = "" if measure_name == "spearman" else f"{measure_name}_"
        assert found[f"{prefix}per_image_activation"] == pytest.approx(np.ones(400))
        torch.testing.assert_close(found[f"{prefix}per_image"], agree(gate, activation))
        chance = num_top(CHANNELS) / CHANNELS if measure_name == "top10" else 0.0
        assert float(found[f"{prefix}per_image_null"].mean()) == pytest.approx(chance, abs=0.06)
