"""Ranges of nuisance hyperparameters that depend on a cell's levels: the same points, mapped into each cell's own range."""

import math

import pytest

from search_spaces import SpecError, check_spec
from study.errors import UserError
from study.planning import search
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.results.ledger import Contents
from study.results.workspace import Workspace

SGD = {"low": 0.01, "high": 1.0, "log": True, "default": 0.1}
ADAMW = {"low": 1e-4, "high": 1e-2, "log": True, "default": 1e-3}
SPEC = {
    "name": "optimizers",
    "factors": {"optimizer": ["sgd", "adamw"]},
    "fixed": {"dataset": "fake", "depth": 8, "width": 4, "epochs": 2},
    "nuisance": {"beta2": {"choices": [0.999]}, "lr": SGD},
    "ranges": [
        {
            "where": {"optimizer": "adamw"},
            "nuisance": {"lr": ADAMW, "beta2": {"low": 0.9, "high": 0.999, "default": 0.99}},
        }
    ],
    "blocks": 2,
    "budget": {"search_trials": 5, "startup_trials": 4},
}


def spec_of(**changes):
    return check_spec({**SPEC, **changes}, "test")


@pytest.fixture(scope="module")
def plan():
    return make_plan(spec_of())


def share(value, given):
    return math.log(value / given["low"]) / math.log(given["high"] / given["low"])


def test_cells_share_points_not_values(plan):
    sgd, adamw = plan.searches
    told = {"config": {"lr": 0.0, "beta2": 0.0}}
    for number in range(plan.spec.budget.startup_trials):
        values = {}
        for cell in (sgd, adamw):
            name, values[cell] = search.suggest(plan.spec_of(cell), plan.searches[cell], 1, [told] * number)
            assert name == cell
        assert share(values[sgd]["lr"], SGD) == pytest.approx(share(values[adamw]["lr"], ADAMW))
        assert values[sgd]["beta2"] == 0.999 and 0.9 <= values[adamw]["beta2"] < 0.999


def test_defaults_boundaries_and_settings_are_each_cells_own(plan):
    sgd, adamw = plan.cells
    assert (plan.default_config(sgd).lr, plan.default_config(adamw).lr) == (0.1, 1e-3)
    assert (plan.default_config(sgd).beta2, plan.default_config(adamw).beta2) == (0.999, 0.99)
    assert search.winner(plan.spec_of(adamw.name), []) == ({"beta2": 0.99, "lr": 1e-3}, False)
    values = {"beta2": 0.95, "lr": 1.1e-2 / 1.1}
    assert search.at_boundary(plan.spec_of(adamw.name), values) == ("lr",)
    assert search.at_boundary(plan.spec_of(sgd.name), values | {"lr": 0.1}) == ()
    assert plan.spec_of("another") == plan.spec


def test_a_study_runs_in_them_to_its_end(plan, record_of):
    """An agenda that is told losses: every trial lies in its cell's range, and the winner is confirmed as it was found."""
    agenda, seen = Agenda(plan, Contents()), []
    while (group := agenda.next_group()) is not None:
        for task in group:
            record = record_of(task.config, cell=task.cell, phase=task.phase, block=task.block, number=task.number)
            record |= {"replicate": task.replicate, "boundary": list(task.boundary)}
            record["metrics"]["val/loss"] = abs(math.log(task.config.lr) + 6.9)
            agenda.contents.replicates[task.config.trial_key] = record
            seen.append(task)
        agenda.group_ended(group)
    assert len(seen) == 2 * 2 * (5 + 1)
    for task in seen:
        given = ADAMW if task.config.optimizer == "adamw" else SGD
        assert given["low"] <= task.config.lr <= given["high"]
    # the best rate, exp(-6.9), is inside AdamW's range and below SGD's
    confirmed = {task.cell: task.boundary for task in seen if task.phase == "confirm"}
    assert "lr" in confirmed[plan.cells[0].name] and "lr" not in confirmed[plan.cells[1].name]


def test_of_several_that_fit_the_last_counts():
    factors = {"optimizer": ["sgd", "adamw"], "depth": [8, 14]}
    deep = {"where": {"optimizer": "adamw", "depth": 14}, "nuisance": {"lr": {**ADAMW, "default": 5e-3}}}
    spec = spec_of(factors=factors, fixed={"dataset": "fake"}, ranges=[*SPEC["ranges"], deep])
    found = [spec.in_cell(cell).nuisance["lr"].default for cell in spec.cells()]
    assert (
        found == [0.1, 0.1, 1e-3, 5e-3]
        and spec.in_cell({"optimizer": "adamw", "depth": 14}).nuisance["beta2"].default == 0.99
    )
    assert (spec.widest("lr").low, spec.widest("lr").high, spec.widest("lr").log) == (1e-4, 1.0, True)
    assert (spec.widest("beta2").low, spec.widest("beta2").high) == (0.9, 0.999)
    only = [{"where": {"optimizer": "sgd"}, "nuisance": {"lr": {"choices": [0.1, 0.2]}}}]
    choices = {"nuisance": {"lr": {"choices": [0.2, 0.4]}}, "ranges": only}
    assert spec_of(**choices).widest("lr").choices == [0.2, 0.4, 0.1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranges": [{"where": {"merge": "mul"}, "nuisance": {"lr": ADAMW}}]}, "ranges.0.where names 'merge', .* no factor"),
        ({"ranges": [{"where": {"optimizer": "adam"}, "nuisance": {"lr": ADAMW}}]}, "is no level .*mean 'adamw'"),
        ({"ranges": [{"where": {"optimizer": "adamw"}, "nuisance": {"momentum": ADAMW}}]}, "names 'momentum', which nuisance"),
        ({"ranges": [{"where": {}, "nuisance": {"lr": ADAMW}}]}, "ranges.0.where: .*at least 1"),
        ({"ranges": [{"where": {"optimizer": "adamw"}, "nuisance": {"lr": {**ADAMW, "low": 1}}}]}, "nuisance.lr: .*low"),
        ({"ranges": [{"where": {"optimizer": "adamw"}, "nuisance": {"lr": {"choices": ["a"]}}}]}, "ranges of 'lr': .*numbers"),
        (
            {
                "factors": [{"optimizer": ["sgd"], "depth": [8]}, {"optimizer": ["adamw"], "depth": [14]}],
                "fixed": {"dataset": "fake"},
                "ranges": [{"where": {"optimizer": "adamw", "depth": 8}, "nuisance": {"lr": ADAMW}}],
            },
            "ranges.0: no cell has",
        ),
        (
            {"joint": {"objectives": [{"name": n, "direction": "minimize"} for n in ("val/loss", "params")]}},
            "ranges with joint",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_a_range(changes, message):
    with pytest.raises(SpecError, match=message) as caught:
        spec_of(**changes)
    assert "\n" not in str(caught.value)


def test_a_value_that_a_cell_cannot_have_is_refused_before_anything_starts():
    with pytest.raises(UserError, match=r"'beta2' = 0\.9: expected 0.999 unless optimizer is adamw"):
        make_plan(spec_of(nuisance={**SPEC["nuisance"], "beta2": {"low": 0.9, "high": 0.999, "default": 0.999}}))


def test_ranges_of_new_cells_may_be_added_those_of_old_ones_may_not_change(tmp_path):
    begun = spec_of(factors={"optimizer": ["sgd"]}, ranges=[])
    workspace = Workspace(tmp_path)
    workspace.freeze(begun)
    grown = spec_of()
    workspace.freeze(grown)
    assert workspace.specification() == grown
    other = [{"where": {"optimizer": "adamw"}, "nuisance": {"lr": {**ADAMW, "high": 0.1}}}]
    with pytest.raises(UserError, match=r"holds results of cell .*adamw.* with .* now .*put back: ranges"):
        workspace.freeze(spec_of(ranges=other))
