"""Options of a cell's training step, chosen by measuring once, frozen with the study."""

import json

import pytest

import study.resources.execution as module
from study.data.dataset import dataset_facts
from study.planning.plan import make_plan
from study.resources.execution import frozen_execution, measure_step
from study.resources.timing import FEW_IMAGES, here
from study.results.files import EXECUTION


@pytest.fixture
def stepped(monkeypatch):
    """Made-up times of a step by its options."""
    given = {}

    def timer(config, known, size, device, steps=2, options=()):
        if config.batch_size == FEW_IMAGES:
            return lambda: 0.0
        found = given.get("+".join(options), 1.0)
        if isinstance(found, Exception):
            raise found
        return lambda: found

    monkeypatch.setattr(module, "timer", timer)
    monkeypatch.setattr(module, "obstacle", lambda option, config, device: "none here" if option == "graph" else "")
    return given


@pytest.mark.parametrize(
    ("times", "named", "chosen"),
    [
        ({}, [], []),
        ({"fused": 0.95, "channels_last": 0.8}, [], ["channels_last"]),
        ({"fused": 0.8, "fused+channels_last": 0.6}, [], ["fused", "channels_last"]),
        ({"fused": 0.8, "fused+channels_last": 0.75}, [], ["fused"]),  # too little to gain
        ({"channels_last": RuntimeError("no kernel\nand so on")}, [], []),
        ({"bf16": 0.1}, [], []),  # never by itself
        ({"bf16": 0.5, "bf16+channels_last": 0.3}, ["bf16"], ["bf16", "channels_last"]),
        ({"compile": 0.1}, [], []),  # a training takes a few seconds
    ],
)
def test_options_that_make_the_step_faster_are_added_one_by_one(config_of, stepped, times, named, chosen):
    stepped |= times
    found = measure_step(config_of(), dataset_facts("fake"), 1, "cpu", named)
    assert found["options"] == chosen and found["left_out"]["graph"] == "none here"
    assert found["milliseconds"]["+".join(named) or "plain"] == 1000 * times.get("+".join(named), 1.0)
    assert ("bf16" in found["left_out"]) == ("bf16" not in named)
    if "channels_last" in times and isinstance(times["channels_last"], Exception):
        assert found["left_out"]["channels_last"] == "RuntimeError: no kernel"


def test_where_what_is_named_does_not_run_nothing_is_measured(config_of, stepped):
    stepped |= {"bf16": RuntimeError("no bfloat16 here")}
    found = measure_step(config_of(), dataset_facts("fake"), 1, "cpu", ["bf16"])
    assert found == {"options": ["bf16"], "left_out": {"auto": "RuntimeError: no bfloat16 here"}}


def test_a_long_training_is_compiled_where_that_is_faster(config_of, stepped):
    stepped |= {"compile": 0.5}
    found = measure_step(config_of(epochs=200), dataset_facts("fake"), 4, "cpu")
    assert found["options"] == ["compile"] and "fused" not in found["milliseconds"]  # a group's update is so anyhow


def test_the_step_is_frozen_with_a_study_and_older_ones_go_on_plain(tmp_path, spec_of, stepped):
    stepped |= {"channels_last": 0.5}

    def steps(folder, step, started=False):
        plan = make_plan(spec_of(resources={"step": step}))
        return {found.step for found in frozen_execution(plan, folder, here, started=started).values()}

    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / name).mkdir()
    assert steps(tmp_path / "a", "plain") == {()} == steps(tmp_path / "b", [])
    assert "step" not in (tmp_path / "a" / EXECUTION).read_text()
    assert steps(tmp_path / "c", "auto") == {("channels_last",)}
    stepped["channels_last"] = 2.0
    assert steps(tmp_path / "c", "auto", started=True) == {("channels_last",)}
    assert steps(tmp_path / "d", "auto", started=True) == {()}  # begun before there was a choice
    assert steps(tmp_path / "a", "auto", started=True) == {()}
    assert steps(tmp_path / "e", ["bf16", "channels_last"]) == {("channels_last", "bf16")}


def test_an_option_that_cannot_be_had_is_left_out_with_a_word(tmp_path, spec_of, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    plan = make_plan(spec_of(resources={"step": ["compile", "channels_last"]}))
    with pytest.warns(UserWarning, match="resources.step: 'compile' is left out: there is no C.. compiler"):
        found = frozen_execution(plan, tmp_path, here, started=False)
    assert {each.step for each in found.values()} == {("channels_last",)}
    held = json.loads((tmp_path / EXECUTION).read_text())[plan.cells[0].name]
    assert "no C++ compiler" in held["step"]["left_out"]["compile"]


def test_real_timings_of_a_step(config_of):
    found = measure_step(config_of(), dataset_facts("fake"), 1, "cpu")
    assert {"plain", "fused"} <= set(found["milliseconds"]) and found["device"] == "cpu"
    assert all(0.01 < value < 10_000 for value in found["milliseconds"].values())
    assert found["left_out"].keys() == {"graph", "compile", "bf16"}
