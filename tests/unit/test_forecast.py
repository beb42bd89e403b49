"""The plan's forecast: facts agree with the data, costs with the networks, and words with the numbers."""

import dataclasses
import math

import pytest
import torch

from analysis.claims.power_words import power_lines
from analysis.stats.power import smallest_detectable
from search_spaces import Resources, load_spec
from search_spaces.load import parse_spec
from study.config import TrialConfig
from study.data import dataset_facts, load_dataset
from study.errors import UserError
from study.planning.plan import make_plan
from study.printing.describe import _measuring, gpu_hours, money
from study.registry import DATASETS
from study.resources import forecast as forecasting
from study.resources.forecast import CellForecast, forecast, total_seconds
from study.training.penalty import jacobian_penalty

TINY = """
name: tiny
factors: {merge: [add, mul], depth: [8]}
fixed: {dataset: fake, width: 4, epochs: 4, batch_size: 16}
nuisance: {lr: {low: 0.01, high: 1.0, log: true, default: 0.1}}
blocks: 3
budget: {search_trials: 2, startup_trials: 1, search_epochs: 2}
measure: {statistics: {input_jacobian: {num_samples: 8}}}
"""


@pytest.mark.parametrize("name", DATASETS.names())
def test_what_is_registered_is_what_is_there(name: str) -> None:
    known = DATASETS[name].traits
    if "num_pool" in known:
        assert {"image_shape", "num_classes", "num_pool", "num_test"} <= set(known)
    try:
        dataset = load_dataset(name)
    except UserError:
        pytest.skip(f"{name} is not on this machine")
    facts = dataset_facts(name)
    assert facts.image_shape == dataset.image_shape and facts.num_classes == dataset.num_classes
    assert facts.num_train + facts.num_val == len(dataset.pool)
    assert (facts.num_val, facts.num_test) == (dataset.num_val, len(dataset.test))


def test_costs_add_up() -> None:
    plan = make_plan(parse_spec(TINY, "test"))
    threads = torch.get_num_threads()
    cells = forecast(plan)
    assert torch.get_num_threads() == threads
    for cell in cells:
        assert cell.confirm_seconds == pytest.approx(2 * cell.search_seconds)
        assert cell.measure_seconds > 0
        # three blocks of two trials of two epochs and one of four, on the images trained on, three forward passes a step
        images = dataset_facts("fake").num_train * 3 * (2 * 2 + 4)
        assert cell.training_flops == images * 3 * cell.flops
    expected = 3 * sum(2 * c.search_seconds + c.confirm_seconds + c.measure_seconds for c in cells)
    assert total_seconds(plan, cells) == pytest.approx(expected)


def test_processes_share_training_and_one_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def image_seconds(config: TrialConfig, known: object, device: str) -> float:
        asked.append(config.batch_size)
        return 1.0

    monkeypatch.setattr(forecasting, "_image_seconds", image_seconds)
    facts = dataset_facts("fake")
    for ranks in (1, 4):
        plan = make_plan(parse_spec(TINY, "test", [f"resources.data_parallel={ranks}"]))
        seconds = forecast(plan)[0].confirm_seconds
        assert seconds == pytest.approx(4 * (facts.num_train / ranks + facts.num_val / 3))
    assert asked == [16, 16, 4, 4]


def test_shortened_trainings_pictures_and_looks_cost_too() -> None:
    text = TINY.replace("search_epochs: 2}", "search_epochs: 2, shortened: [0.25, 0.5]}").replace(
        "num_samples: 8}}}",
        "num_samples: 8}}, landscapes: {path: {num_pairs: 4}}, during: {every: 3, statistics: {path: {}}}}",
    )
    plan = make_plan(parse_spec(text, "test"))
    cells = forecast(plan)
    for cell in cells:
        # one epoch and two, each measured
        assert cell.short_seconds == pytest.approx(3 / 4 * cell.confirm_seconds + 2 * cell.measure_seconds)
        # two looks, after epochs 3 and 4, at a path of 1,000 pairs; pictures of 4 pairs are cheaper
        assert cell.during_seconds > 2 * cell.landscape_seconds > 0
    each = (
        2 * c.search_seconds + c.confirm_seconds + c.measure_seconds + c.during_seconds + c.short_seconds for c in cells
    )
    pictures = sum(c.landscape_seconds for c in cells)  # of one block alone
    assert total_seconds(plan, cells) == pytest.approx(3 * sum(each) + pictures)
    told = " ".join(_measuring(plan, cells))
    assert "in mid-training" in told and "warning: measuring in mid-training takes more than 10%" in told
    cheap = [dataclasses.replace(c, during_seconds=0.01 * c.confirm_seconds) for c in cells]
    assert "warning" not in " ".join(_measuring(plan, cheap))


def test_a_penalty_is_part_of_the_step_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        "study.training.loop.jacobian_penalty", lambda *given: calls.append(given) or jacobian_penalty(*given)
    )
    forecast(make_plan(parse_spec(TINY, "test")))
    assert not calls
    forecast(make_plan(parse_spec(TINY.replace("fixed: {", "fixed: {jacobian_penalty: 0.1, "), "test")))
    assert calls


def test_power_is_told_as_the_spread_at_which_a_margin_would_be_seen() -> None:
    spec = load_spec("digits")
    # Holm's first step: alpha over the number of claims of both kinds
    level = 0.05 / (len(spec.claims) + len(spec.level_claims))
    # any of a family's arms may support its claim
    unit = smallest_detectable(12, level / len(spec.claims["C4"].arms), 1.0)
    lines = power_lines(spec)
    assert lines[0].startswith("power: 12 pairs")
    (c4,) = [line for line in lines if line.startswith("C4: an effect")]
    assert f"spread by {1 / unit:.2g} pp or less ({unit:.2f} spreads)" in c4
    # and such a spread is one at which it is: detectable effects are proportional to the spread
    assert smallest_detectable(12, level / 4, 0.01 / unit) == pytest.approx(0.01)


def test_too_few_pairs_are_said_to_see_nothing() -> None:
    lines = power_lines(load_spec("digits", ["blocks=4"]))
    assert math.isinf(smallest_detectable(4, 0.05, 0.01))
    assert "nothing can be found" in lines[0]
    assert all("cannot be seen with so few pairs" in line for line in lines if ": an effect of its margin" in line)


def test_gpu_hours_of_fractions_and_of_several() -> None:
    assert gpu_hours(7200, 2) == "4.0 GPU hours"
    assert gpu_hours(7200, 0.25) == "0.5 GPU hours, up to 2.0 where trials that share one slow each other down"


def test_money_by_what_a_trial_occupies() -> None:
    assert (
        money(7200, Resources(gpus=2, data_parallel=2), 2.5, "cuda")
        == "money: 10.00 at 2.5 a GPU hour; idle hours come on top"
    )
    assert money(7200, Resources(cpus=3), 0.1, "cpu") == "money: 0.60 at 0.1 a core hour; idle hours come on top"
    assert "0.50 at 1 a GPU hour, up to 2.00 where trials" in money(7200, Resources(gpus=0.25), 1, "cuda")
    assert "no GPU here" in money(7200, Resources(gpus=1), 2.5, "cpu")


def test_a_joint_search_costs_its_trials_at_the_mean_cell() -> None:
    plan = make_plan(load_spec("joint"), needs_data=False)
    rest = dict.fromkeys(
        ("params", "flops", "short_seconds", "landscape_seconds", "during_seconds", "training_flops"), 0
    )
    cells = [
        CellForecast(cell="", search_seconds=s, confirm_seconds=10 * s, measure_seconds=1, **rest) for s in (1.0, 3.0)
    ]
    assert total_seconds(plan, cells) == plan.num_search * 2 + plan.num_confirm * 21
