"""How a cell's replicates train, chosen by measuring once, frozen; and a fused group from task to records."""

import dataclasses
import json

import pytest
import torch

import study.measuring.replicate
import study.resources.execution as module
import study.worker.ahead
from study.config import Execution, Task
from study.data.dataset import dataset_facts
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.resources.execution import frozen_execution, measure_groups, sizes
from study.resources.timing import FEW_IMAGES, here, timer
from study.results.files import EXECUTION
from study.results.ledger import Contents
from study.training import Progress, load_checkpoint
from study.worker.group import run_group


def frozen_groups(plan, folder, *, started):
    return {name: found.together for name, found in frozen_execution(plan, folder, here, started=started).items()}


@pytest.fixture
def plan_of(spec_of):
    def make(fuse="auto", group=4, **changes):
        return make_plan(spec_of(resources={"group": group, "fuse": fuse}, **{"blocks": 8, **changes}))

    return make


@pytest.fixture
def timed(monkeypatch):
    """Made-up times by group size, of every network; counts how often a size is set up."""
    given, asked = {"times": {1: 1.0, 2: 0.9, 4: 0.5}}, []

    def timer(config, known, size, device, steps=2, options=()):
        asked.append(size)
        if config.batch_size == FEW_IMAGES:
            return lambda: given.get("few", 0.0)
        if isinstance(given["times"][size], Exception):
            raise given["times"][size]
        return lambda: given["times"][size]

    monkeypatch.setattr(module, "timer", timer)
    return given, asked


@pytest.mark.parametrize(
    ("times", "together"),
    [
        ({1: 1.0, 2: 0.9, 4: 0.5}, 4),
        ({1: 1.0, 2: 0.6, 4: 0.7}, 2),
        ({1: 1.0, 2: 0.95, 4: 0.95}, 1),  # too little to gain
        ({1: 1.0, 2: 2.0, 4: 3.0}, 1),
        ({1: 1.0, 2: 0.8, 4: torch.OutOfMemoryError()}, 2),
        ({1: 1.0, 2: RuntimeError("no batching rule"), 4: 0.1}, 1),
    ],
)
def test_the_fastest_size_is_taken_where_it_pays(tmp_path, plan_of, timed, times, together):
    timed[0]["times"] = times
    plan = plan_of()
    assert frozen_groups(plan, tmp_path, started=False) == {cell.name: together for cell in plan.cells}
    held = json.loads((tmp_path / EXECUTION).read_text())
    assert held[plan.cells[0].name]["milliseconds"]["1"] == 1000.0 and held[plan.cells[0].name]["device"] == "cpu"


def test_a_size_is_timed_by_the_step_it_would_take(config_of, monkeypatch):
    """Eight as one gain by channels that lie innermost, and one alone does not."""
    times = {(1, ()): 1.0, (8, ()): 0.95, (1, ("channels_last",)): 1.0, (8, ("channels_last",)): 0.6}
    monkeypatch.setattr(
        module,
        "timer",
        lambda config, known, size, device, steps=2, options=(): lambda: times.get((size, options), 2.0),
    )
    monkeypatch.setattr(module, "_is_slow", lambda *_: False)
    together = {
        asked: measure_groups(config_of(), dataset_facts("fake"), 8, "cpu", module._layouts(asked))["together"]
        for asked in [(), ("auto",), ("channels_last", "bf16")]
    }
    assert together == {(): 1, ("auto",): 8, ("channels_last", "bf16"): 8}


@pytest.mark.parametrize("asked", [("auto",), ("channels_last",)])
def test_what_cannot_be_stacked_trains_one_by_one_whatever_its_step(config_of, monkeypatch, asked):
    def timer(config, known, size, device, steps=2, options=()):
        if size > 1 or options:
            raise ValueError("module 'x' draws each step and keeps it in no buffer (persistent=False)")
        return lambda: 0.0

    monkeypatch.setattr(module, "timer", timer)
    found = measure_groups(config_of(), dataset_facts("fake"), 8, "cpu", module._layouts(asked))
    assert found["together"] == 1


def test_it_is_measured_once_for_a_network_and_never_again(tmp_path, plan_of, timed):
    given, asked = timed
    first = frozen_groups(plan_of(), tmp_path, started=False)
    assert asked == [1, 1, 2, 4]  # two cells, one network: a few images, then the sizes
    given["times"] = {1: 1.0, 2: 9.0, 4: 9.0}
    assert frozen_groups(plan_of(), tmp_path, started=True) == first and len(asked) == 4
    # a cell that is added later is measured, and the others stay
    more = plan_of(factors={"merge": ["add", "mul", "max"]})
    assert list(frozen_groups(more, tmp_path, started=True).values()) == [4, 4, 1]
    deeper = plan_of(factors={"merge": ["add"], "depth": [8, 14]}, fixed={"dataset": "fake", "width": 4})
    asked.clear()
    frozen_groups(deeper, tmp_path / "..", started=False)
    assert asked == [1, 1, 2, 4] * 2


def test_a_study_begun_before_goes_on_one_by_one(tmp_path, plan_of, timed):
    assert set(frozen_groups(plan_of("always"), tmp_path, started=True).values()) == {1}
    assert set(frozen_groups(plan_of(), tmp_path, started=True).values()) == {1} and not timed[1]


@pytest.mark.parametrize(
    ("fuse", "changes", "together"),
    [
        ("never", {}, 1),
        ("always", {}, 4),
        ("always", {"blocks": 2}, 2),  # no more than a group can hold
        ("always", {"blocks": 1, "replicates": 3}, 3),
        ("auto", {"group": 1}, 1),
        ("auto", {"blocks": 1}, 1),
    ],
)
def test_what_is_asked_for_is_not_measured(tmp_path, plan_of, timed, fuse, changes, together):
    assert set(frozen_groups(plan_of(fuse, **changes), tmp_path, started=False).values()) == {together}
    assert not timed[1]


def test_a_slow_network_is_not_measured(tmp_path, plan_of, timed):
    timed[0]["few"] = 1.0
    assert set(frozen_groups(plan_of(), tmp_path, started=False).values()) == {1} and timed[1] == [1]


def test_sizes_up_to_a_group():
    assert [sizes(group) for group in (1, 2, 3, 8, 12)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 12]]


def test_tasks_say_how_many_train_together(plan_of):
    agenda = Agenda(
        plan_of(factors={"merge": ["add", "mul"]}),
        Contents(),
        execution={"fake/d8/add": Execution(together=3, step=("fused",))},
    )
    handed = {task.cell: task for _ in range(4) for task in agenda.next_group()}
    assert {cell: task.together for cell, task in handed.items()} == {"fake/d8/add": 3, "fake/d8/mul": 1}
    task = handed["fake/d8/add"]
    assert task.step == ("fused",) and handed["fake/d8/mul"].step == ()
    assert Task.from_plain(json.loads(json.dumps(task.to_plain()))) == task


def test_real_timings(config_of):
    config = config_of(augment="pad_crop")
    found = measure_groups(config, dataset_facts("fake"), 2, "cpu")
    assert list(found["milliseconds"]) == ["1", "2"] and found["together"] in (1, 2)
    assert all(0.01 < value < 10_000 for value in found["milliseconds"].values())
    assert timer(config, dataset_facts("fake"), 3, "cpu", steps=1)() > 0


@pytest.fixture
def tasks_of(config_of):
    def make(**changes):
        configs = [
            config_of(seed=seed, split_seed=seed, lr=0.05 * seed, **{"epochs": 3, **changes}) for seed in (1, 2, 3)
        ]
        return [
            Task(
                config=config, cell="fake/d8/add", phase="confirm", block=index, replicate=index, number=3,
                checkpoints="final", together=3, statistics={"path": {"num_pairs": 8, "num_steps": 4}},
            )
            for index, config in enumerate(configs)
        ]  # fmt: skip

    return make


def records(tasks, folder, together=3):
    group = [dataclasses.replace(task, together=together) for task in tasks]
    return [event for event in run_group(group, folder) if not isinstance(event, Progress)]


def alike(records, others):
    for (record, *measured), (other, *expected) in zip(records, others, strict=True):
        told = ("trial_key", "state", "epochs", "params", "flops", "resumed_from", "reason")
        assert {name: record[name] for name in told} == {name: other[name] for name in told}
        assert record["metrics"].keys() == other["metrics"].keys()
        for name, value in other["metrics"].items():
            assert record["metrics"][name] == pytest.approx(value, rel=0.02, abs=0.02), name
        for name, curve in other["curves"].items():
            assert record["curves"][name] == pytest.approx(curve, rel=0.02, abs=0.02), name
        assert [m["measure_key"] for m in measured] == [m["measure_key"] for m in expected]


def test_records_of_a_fused_group_are_those_of_its_members(tmp_path, tasks_of):
    tasks = tasks_of()
    together = records(tasks, tmp_path / "a", 3)
    alike(together, records(tasks, tmp_path / "b", 1))
    assert together[0][0]["resumed_from"] == 0 and together[0][0]["train_seconds"] > 0
    assert not list(tmp_path.rglob("state.pt"))


@pytest.mark.parametrize("together", [1, 3])
def test_records_of_a_step_with_options_are_those_of_the_plain_one(tmp_path, tasks_of, monkeypatch, together):
    seen, train = [], study.worker.ahead.train_together

    def watched(members, *given, **named):
        seen.append((len(members), named["at_once"], named["options"]))
        return train(members, *given, **named)

    monkeypatch.setattr(study.worker.ahead, "train_together", watched)
    tasks = [dataclasses.replace(task, step=("channels_last",)) for task in tasks_of()]
    alike(records(tasks, tmp_path / "a", together), records(tasks_of(), tmp_path / "b", 1))
    assert seen == ([(1, 1, ("channels_last",))] * 3 if together == 1 else [(3, 3, ("channels_last",))])


@pytest.mark.parametrize(("faults", "completed"), [(1, [True, True]), (9, [False, True])])
def test_memory_that_a_look_lacks_is_its_own_members_matter(tmp_path, tasks_of, monkeypatch, faults, completed):
    """Once, the group's memory is given up for it; if that does not do, the member has failed, and no other."""
    settings = {"input_jacobian": {"num_samples": 8, "split": "val"}}
    tasks = [dataclasses.replace(task, during=settings, every=2) for task in tasks_of()[:2]]
    look, left = study.measuring.replicate.measure_during, [faults]

    def full(task, *given):
        if task.block == 0 and left[0] > 0:
            left[0] -= 1
            raise torch.OutOfMemoryError("full")
        return look(task, *given)

    monkeypatch.setattr(study.measuring.replicate, "measure_during", full)
    found = records(tasks, tmp_path, 2)
    assert [record["state"] == "completed" for record, *_ in found] == completed
    assert all(record["state"] == "completed" or "OutOfMemoryError" in record["reason"] for record, *_ in found)
    assert [point["epoch"] for point in found[1][0]["trajectory"]] == [2, 3]


def test_progress_of_a_fused_group_is_told_once(tmp_path, tasks_of):
    events = list(run_group(tasks_of(), tmp_path))
    told = [event.epoch for event in events if isinstance(event, Progress)]
    assert told == [1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(("told", "then"), [(3, 3), (5, 1), (7, 3), (10, 1)])
def test_killed_a_fused_group_goes_on_fused_or_one_by_one(tmp_path, tasks_of, told, then):
    tasks = tasks_of()
    whole = records(tasks, tmp_path / "whole", 3)
    events = run_group(tasks, tmp_path)
    for _ in range(told):
        next(events)
    events.close()
    again = records(tasks, tmp_path, then)
    if told < 7:
        assert [record["resumed_from"] for record, *_ in again] == [(told - 1) // 3 + 1] * 3
    for (record, *_), (other, *_) in zip(again, whole, strict=True):
        record["resumed_from"] = other["resumed_from"]
    alike(again, whole)
    if then == 3:
        assert [record["metrics"] for record, *_ in again] == [record["metrics"] for record, *_ in whole]


def test_a_member_that_cannot_be_built_leaves_the_others_together(tmp_path, tasks_of, monkeypatch):
    tasks = tasks_of()
    wrong = dataclasses.replace(tasks[1], config=dataclasses.replace(tasks[1].config, merge="nonsense"))
    seen, train = [], study.worker.ahead.train_together

    def watched(members, *given, **named):
        seen.append(len(members))
        return train(members, *given, **named)

    monkeypatch.setattr(study.worker.ahead, "train_together", watched)
    found = records([tasks[0], wrong, tasks[2]], tmp_path, 3)
    assert [record["state"] for record, *_ in found] == ["completed", "failed", "completed"] and seen == [2]
    assert found[1][0]["reason"].startswith("unknown merge 'nonsense'")


def test_what_was_trained_before_is_not_trained_again(tmp_path, tasks_of, monkeypatch):
    tasks = tasks_of()
    first = records(tasks, tmp_path, 3)
    monkeypatch.setattr(study.worker.ahead, "train_together", None)
    assert records(tasks, tmp_path, 3) == first
    assert load_checkpoint(tmp_path / "checkpoints" / tasks[0].config.trial_key / "final.pt")["model"]


def test_what_is_measured_in_mid_training_is_measured_in_a_fused_group_too(tmp_path, tasks_of):
    settings = {"input_jacobian": {"num_samples": 8, "split": "val"}}
    tasks = [dataclasses.replace(task, during=settings, every=2) for task in tasks_of()]
    together, alone = records(tasks, tmp_path / "a", 3), records(tasks, tmp_path / "b", 1)
    for (record, *_), (other, *_) in zip(together, alone, strict=True):
        assert [point["epoch"] for point in record["trajectory"]] == [2, 3]
        for point, own in zip(record["trajectory"], other["trajectory"], strict=True):
            for name, estimate in own["estimates"].items():
                assert point["estimates"][name]["value"] == pytest.approx(estimate["value"], rel=0.05), name
