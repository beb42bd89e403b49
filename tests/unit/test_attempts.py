"""Workers that die: the member that kills them fails alone, after four, and only what has happened to one driver counts."""

import dataclasses
from pathlib import Path

import pytest

import study.worker.group as module
from study.config import Task
from study.training import Progress
from study.worker.attempts import MAX_LOSSES, REASON, Attempts
from study.worker.group import run_group


class Death(BaseException):
    """What a killed worker looks like from within: nothing is caught, nothing is written any more."""


@pytest.fixture
def tasks_of(config_of):
    def make(**changes):
        configs = [config_of(seed=seed, split_seed=seed, epochs=2) for seed in (1, 2, 3)]
        return [
            Task(config=config, cell="fake/d8/add", phase="confirm", block=i, replicate=i, number=3, **changes)
            for i, config in enumerate(configs)
        ]

    return make


@pytest.fixture
def deadly(monkeypatch):
    """Makes a function of ``study.worker.group`` deadly for one seed."""

    def make(name, seed, seed_of):
        original = getattr(module, name)

        def die(*given, **named):
            if seed_of(*given) == seed:
                raise Death
            return original(*given, **named)

        monkeypatch.setattr(module, name, die)

    return make


def lives(tasks, folder, driver="a"):
    """Workers until the group is through: how many died, and the last one's records."""
    for died in range(10):
        try:
            return died, [event for event in run_group(tasks, folder, driver=driver) if not isinstance(event, Progress)]
        except Death:
            continue
    raise AssertionError("a group for ever")


def test_the_member_that_kills_its_workers_fails_alone(tmp_path, tasks_of, deadly):
    deadly("train", 2, lambda member: member.config.seed)
    died, records = lives(tasks_of(), tmp_path)
    assert died == MAX_LOSSES + 1
    assert [(record["state"], record["reason"]) for record, *_ in records] == [
        ("completed", ""), ("failed", REASON), ("completed", ""),
    ]  # fmt: skip
    assert not list(tmp_path.rglob("attempts.json"))


def test_so_it_does_out_of_a_fused_group(tmp_path, tasks_of, deadly, monkeypatch):
    import study.worker.ahead

    together, sizes = study.worker.ahead.train_together, []

    def die(members, *given, **named):
        sizes.append(len(members))
        if any(member.config.seed == 2 for member in members):
            raise Death
        yield from together(members, *given, **named)

    monkeypatch.setattr(study.worker.ahead, "train_together", die)
    deadly("train", 2, lambda member: member.config.seed)
    died, records = lives(tasks_of(together=3), tmp_path)
    # one death together, the rest one by one
    assert sizes == [3] and died == MAX_LOSSES + 1
    assert [record["state"] for record, *_ in records] == ["completed", "failed", "completed"]


def test_a_trained_replicate_stands_if_measuring_it_kills(tmp_path, tasks_of, deadly):
    deadly("measure_replicate", 2, lambda task, *_: task.config.seed)
    statistics = {"input_jacobian": {"num_samples": 8}}
    died, records = lives(tasks_of(statistics=statistics, checkpoints="final"), tmp_path)
    # the first one had finished epochs
    assert died == 1 + MAX_LOSSES + 1
    assert [record["state"] for record, *_ in records] == ["completed"] * 3
    assert [measured["error"] for _, measured in records] == ["", REASON, ""]


def test_deaths_under_other_drivers_do_not_count(tmp_path, tasks_of, deadly):
    deadly("train", 1, lambda member: member.config.seed)
    for driver in range(MAX_LOSSES + 3):
        with pytest.raises(Death):
            list(run_group(tasks_of(), tmp_path, driver=str(driver)))
    assert Attempts("another").losses(next(tmp_path.glob("checkpoints/*"))) == 0


def test_a_member_that_comes_on_may_go_from_dying_worker_to_dying_worker(tmp_path, tasks_of):
    """Each worker lives for one epoch: that speaks against the machine."""
    task = dataclasses.replace(tasks_of()[0], config=dataclasses.replace(tasks_of()[0].config, epochs=2 * MAX_LOSSES))
    for _ in range(2 * MAX_LOSSES):
        events = run_group([task], tmp_path, driver="a")
        assert isinstance(next(events), Progress)
        events.close()
    _, ((record,),) = lives([task], tmp_path)
    assert record["state"] == "completed" and record["resumed_from"] == 2 * MAX_LOSSES


def test_a_damaged_note_counts_as_none(tmp_path: Path) -> None:
    for text in ("", "{", "null", '{"driver": "a"}', "[1]"):
        (tmp_path / "attempts.json").write_text(text)
        assert Attempts("a").begin(tmp_path) == 0
    assert Attempts("a").begin(tmp_path) == 1
