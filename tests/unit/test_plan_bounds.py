"""A plan takes bounded time and memory: networks are counted before they are built, timing stops after a while."""

import time

import pytest
import torch

from study.data import dataset_facts
from study.errors import UserError
from study.models import num_flops, num_params
from study.planning.networks import counted_flops, shapes, untrained
from study.planning.plan import make_plan
from study.registry import MERGES
from study.resources import forecast as forecasting


@pytest.mark.parametrize("merge", [entry.name for entry in MERGES][:12])
def test_a_network_is_counted_as_it_is_built(config_of, merge):
    config, known = config_of(merge=merge), dataset_facts("fake")
    real = untrained(config, known)
    assert num_params(shapes(config, known)) == num_params(real)
    assert counted_flops(config, known) == num_flops(real, known.image_shape)
    assert all(parameter.is_meta for parameter in shapes(config, known).parameters())


def test_a_network_of_billions_is_refused_before_it_takes_memory(spec_of):
    fixed = {"dataset": "fake", "depth": 1202, "width": 4096, "epochs": 1}
    started = time.monotonic()
    with pytest.raises(
        UserError, match=r"'width' = 4096 with depth = 1202: a network of [0-9,]+ parameters, at most 500,000,000"
    ):
        make_plan(spec_of(fixed=fixed))
    assert time.monotonic() - started < 60


def test_cells_that_are_not_timed_follow_from_flops(spec_of, monkeypatch):
    monkeypatch.setattr(forecasting, "_MOST_SECONDS", 0.0)
    factors, fixed = {"merge": ["add", "mul"], "width": [4, 8]}, {"dataset": "fake", "depth": 8, "epochs": 2}
    plan = make_plan(spec_of(factors=factors, fixed=fixed))
    cells = forecasting.forecast(plan)
    assert [cell.timed for cell in cells] == [True, False, False, False]
    for cell in cells[1:]:
        assert cell.search_seconds / cells[0].search_seconds == pytest.approx(cell.flops / cells[0].flops)


def test_statistics_that_take_too_long_are_named(spec_of, monkeypatch):
    monkeypatch.setattr(forecasting, "_MOST_SECONDS", 0.0)
    with pytest.raises(UserError, match=r"measure.statistics.path: the statistics take more than 0 s"):
        forecasting.forecast(make_plan(spec_of(measure={"statistics": {"path": {"num_pairs": 100_000}}})))


def test_a_large_batch_is_not_timed_whole(config_of, monkeypatch):
    sizes = []

    def timer(config, *_, **__):
        sizes.append(config.batch_size)
        return lambda: 1e-6

    monkeypatch.setattr(forecasting, "timer", timer)
    known = dataset_facts("cifar10")
    forecasting._image_seconds(config_of(batch_size=128), known, "cpu")
    forecasting._image_seconds(config_of(batch_size=32_768, width=512), known, "cpu")
    assert sizes == [4, 128, 4]


def test_plans_draw_no_weights(spec_of):
    before = torch.get_rng_state()
    make_plan(spec_of())
    assert torch.equal(before, torch.get_rng_state())
