"""A group of replicates from task to records: complete, apart from one another, and safe to kill anywhere."""

import dataclasses
import json
import math
from collections import defaultdict

import pytest
import torch

import study.measuring.replicate as measurement
import study.worker.ahead as ahead
import study.worker.group as module
from study.config import Task
from study.data import Splits, load_dataset, split
from study.errors import UserError
from study.models import build_network
from study.schema import ReplicateRecord
from study.smoothness import MeasureContext, measure, parse_settings, reestimated_batchnorm, statistic_key
from study.training import Member, Progress, evaluate, load_checkpoint, save_checkpoint
from study.worker.group import discard_outcome, run_group

STATISTICS = {"path": {"num_pairs": 8, "num_steps": 4}, "input_jacobian": {"num_samples": 8}}


@pytest.fixture(scope="module")
def task_of(config_of):
    def make(phase="confirm", statistics=None, checkpoints="final", **changes):
        return Task(
            config=config_of(**changes), cell="fake/d8/add", phase=phase, block=1, replicate=1, number=3,
            statistics=statistics or {}, boundary=("lr",), checkpoints=checkpoints,
        )  # fmt: skip

    return make


def folder(storage, task):
    return storage / "checkpoints" / task.config.trial_key


def run(storage, *tasks):
    """A member's records each, as a list."""
    return [event for event in run_group(tasks, storage) if not isinstance(event, Progress)]


def timeless(records):
    """Records without wall-clock readings, and without the note of having been resumed."""
    untold = ("train_seconds", "measure_seconds", "resumed_from")
    return json.loads(json.dumps([{k: v for k, v in record.items() if k not in untold} for record in records]))


def names(parts, suffixes):
    return {f"{part}/{name}{suffix}" for part in parts for name in ("accuracy", "loss") for suffix in suffixes}


def test_a_searched_replicate_is_recorded_in_full(tmp_path, task_of):
    task = task_of("search", epochs=3)
    (records,) = run(tmp_path, task)
    (record,) = records
    assert set(record) == set(ReplicateRecord.__annotations__)
    assert {k: record[k] for k in ("kind", "trial_key", "cell", "phase", "block", "replicate", "number", "boundary")} == {
        "kind": "replicate", "trial_key": task.config.trial_key, "cell": "fake/d8/add", "phase": "search", "block": 1,
        "replicate": 1, "number": 3, "boundary": ["lr"],
    }  # fmt: skip
    assert record["config"] == task.config.as_dict() and record["reason"] == "" and record["defaulted"] is False
    assert set(record["metrics"]) == names(["train", "val"], ["", "_best"])
    halves = {"val/accuracy_half1", "val/accuracy_half2"}
    assert set(record["curves"]) == names(["train", "val"], [""]) | halves
    assert {len(c) for c in record["curves"].values()} == {3}
    assert record["epochs"] == 3 and record["train_seconds"] > 0 and record["resumed_from"] == 0
    assert record["metrics"]["val/loss"] == record["curves"]["val/loss"][-1]
    assert record["metrics"]["val/loss_best"] == min(record["curves"]["val/loss"])
    model = build_network(task.config, num_classes=4, mean=(0.5,), deviation=(0.3,))
    assert record["params"] == sum(p.numel() for p in model.parameters()) and record["flops"] > 10_000


def test_a_confirmed_replicate_is_tested_and_measured(tmp_path, task_of):
    # too fast for so few images: the best epoch is not the last, so that the two cannot be taken for one another
    task = task_of(statistics=STATISTICS, epochs=4, lr=0.4, schedule="constant")
    ((record, *measured),) = run(tmp_path, task)
    assert (
        record["state"] in ("completed", "collapsed")
        and record["metrics"]["val/loss_best"] < record["metrics"]["val/loss"]
    )
    assert set(record["metrics"]) == names(["train", "val", "test"], ["", "_best", "_bn_reestimated"])
    assert [m["statistic"] for m in measured] == list(STATISTICS)
    for m in measured:
        assert (
            m["trial_key"] == task.config.trial_key and m["error"] == "" and m["estimates"] and m["measure_seconds"] > 0
        )
        assert all(
            e["num_samples"] >= 1 and (math.isfinite(e["value"]) or not e["converged"]) for e in m["estimates"].values()
        )
    assert measured[0]["measure_key"] == statistic_key(task.config.trial_key, "path", STATISTICS["path"])
    # the weights that are kept are those that were recorded
    kept = load_checkpoint(folder(tmp_path, task) / "final.pt")
    assert kept["config"] == task.config.as_dict()
    model = build_network(task.config, num_classes=4, mean=(0.5,), deviation=(0.3,))
    model.load_state_dict(kept["model"])
    parts = split(load_dataset("fake"), 2)
    found = evaluate(model, parts.test.batches(64))
    assert found == {name: record["metrics"][f"test/{name}"] for name in found}
    # and those that are measured, with batch norm re-estimated on the training split
    with reestimated_batchnorm(model, parts.train.pixels(), task.config.batch_size):
        context = MeasureContext.calibrated(
            model=model, num_classes=4, seed=task.config.seed, images={k: v.pixels() for k, v in vars(parts).items()},
            labels={k: v.labels for k, v in vars(parts).items()},
        )  # fmt: skip
        expected = measure("path", parse_settings("path", STATISTICS["path"]), context)
    assert measured[0]["estimates"] == {name: estimate.as_record() for name, estimate in expected.items()}


def test_records_are_reproducible_and_do_not_depend_on_the_group(tmp_path, task_of):
    tasks = [task_of(seed=seed, statistics={"path": STATISTICS["path"]}) for seed in (1, 2)]
    together = run(tmp_path / "a", *tasks)
    torch.manual_seed(5)
    alone = [run(tmp_path / "b", task)[0] for task in reversed(tasks)][::-1]
    assert [timeless(records) for records in together] == [timeless(records) for records in alone]
    assert together[0][0]["metrics"] != together[1][0]["metrics"]


class Untouchable:
    def __getattr__(self, name):
        raise AssertionError("the test split was read")

    def __len__(self):
        raise AssertionError("the test split was read")


def test_the_test_split_is_not_read_in_search(tmp_path, task_of, monkeypatch):
    parts = split(load_dataset("fake"), 2)
    monkeypatch.setattr(module, "splits_on", lambda *_: Splits(train=parts.train, val=parts.val, test=Untouchable()))
    assert run(tmp_path, task_of("search"))[0][0]["state"] == "completed"
    # the check can fail: confirming does read it
    assert "the test split was read" in run(tmp_path / "b", task_of("confirm"))[0][0]["reason"]


def test_a_failing_member_leaves_the_others_alone(tmp_path, task_of, monkeypatch):
    tasks = [task_of(seed=1), task_of(seed=2, merge="nonsense"), task_of(seed=3), task_of(seed=4)]
    build = ahead.build_network

    def faulty(config, **values):
        if config.seed == 3:
            raise RuntimeError("out of order")
        return build(config, **values)

    monkeypatch.setattr(ahead, "build_network", faulty)
    records = [member[0] for member in run(tmp_path, *tasks)]
    assert [record["state"] for record in records] == ["completed", "failed", "failed", "completed"]
    assert records[1]["reason"].startswith("unknown merge 'nonsense'") and "\n" not in records[1]["reason"]
    assert "RuntimeError: out of order" in records[2]["reason"]
    for task, record in zip(tasks, records, strict=True):
        assert record["trial_key"] == task.config.trial_key and set(record) == set(ReplicateRecord.__annotations__)
    assert records[1]["metrics"] == {} and not (folder(tmp_path, tasks[1]) / "outcome.json").exists()


def test_progress_is_told_every_epoch(tmp_path, task_of):
    events = list(run_group([task_of(epochs=3), task_of("search", epochs=2)], tmp_path))
    told = [(e.epoch, e.epochs) for e in events if isinstance(e, Progress)]
    assert told == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]
    assert not isinstance(events[3], Progress)  # a member's records come as soon as it is finished


@pytest.mark.parametrize("phase", ["search", "confirm"])
def test_divergence_is_recorded_and_not_measured(tmp_path, task_of, phase):
    task = task_of(phase, statistics=STATISTICS if phase == "confirm" else None, lr=1e6, epochs=3)
    ((record, *measured),) = run(tmp_path, task)
    assert record["state"] == "diverged" and measured == [] and record["epochs"] < 3
    assert all(map(math.isfinite, record["metrics"].values()))
    assert not list(tmp_path.rglob("*.pt"))
    json.dumps(record["metrics"], allow_nan=False)


def test_pruning_and_collapse_are_states(tmp_path, task_of):
    pruned = run(tmp_path, task_of("search", stop_curve=[0.0, 0.0, 0.0], epochs=4))[0][0]
    assert (pruned["state"], pruned["epochs"]) == ("pruned", 1) and len(pruned["curves"]["val/loss"]) == 1
    collapsed = run(tmp_path, task_of(lr=1e-9, epochs=1, statistics={"input_jacobian": {"num_samples": 4}}))[0]
    assert collapsed[0]["state"] == "collapsed" and collapsed[0]["metrics"]["val/accuracy"] < 0.3
    assert len(collapsed) == 2  # a collapsed network is measured like any other


@pytest.mark.parametrize(
    ("policy", "files"), [("final", ["final.pt"]), ("best", ["best.pt", "final.pt"]), ("none", [])]
)
def test_checkpoint_policies(tmp_path, task_of, policy, files):
    task = task_of(checkpoints=policy, epochs=3)
    ((record,),) = run(tmp_path, task)
    assert sorted(p.name for p in folder(tmp_path, task).iterdir()) == sorted([*files, "outcome.json"])
    discard_outcome(tmp_path, task.config.trial_key)
    discard_outcome(tmp_path, task.config.trial_key)  # twice does no harm
    assert folder(tmp_path, task).exists() == bool(files)
    if policy == "best":
        model = build_network(task.config, num_classes=4, mean=(0.5,), deviation=(0.3,))
        model.load_state_dict(load_checkpoint(folder(tmp_path, task) / "best.pt")["model"])
        found = evaluate(model, split(load_dataset("fake"), 2).val.batches(64))
        assert found["loss"] == record["metrics"]["val/loss_best"]


def test_a_search_keeps_no_weights(tmp_path, task_of):
    run(tmp_path, task_of("search", checkpoints="final"))
    assert not list(tmp_path.rglob("*.pt"))


def test_what_is_finished_is_not_run_again(tmp_path, task_of, monkeypatch):
    task = task_of(statistics=STATISTICS)
    first = run(tmp_path, task)
    save_checkpoint({}, folder(tmp_path, task) / "state.pt")  # killed before it could tidy up
    monkeypatch.setattr(module, "train", None)
    assert run(tmp_path, task) == first
    assert sorted(p.name for p in folder(tmp_path, task).iterdir()) == ["final.pt", "outcome.json"]


def test_weights_that_were_kept_before_a_setting_came_are_taken(tmp_path, task_of, monkeypatch):
    """An older file lacks the setting, which is at its default; a file of other settings is none of this replicate."""
    task = task_of(epochs=1)
    ((record,),) = run(tmp_path, task)
    path = folder(tmp_path, task) / "final.pt"
    kept = load_checkpoint(path)
    for config in (kept["config"], kept["record"]["config"]):
        del config["last_batch"], config["norm_parts"]

    def train(member):
        raise RuntimeError("trained again")

    monkeypatch.setattr(module, "train", train)
    for changes in ({}, {"merge": "mul"}):
        (folder(tmp_path, task) / "outcome.json").unlink(missing_ok=True)
        save_checkpoint({**kept, "config": {**kept["config"], **changes}}, path)
        ((again, *_),) = run(tmp_path, task)
        assert again["state"] == ("failed" if changes else record["state"])


KILLS = [(what, at, kept) for what in ("train", "evaluate", "measure") for at in (0, 1) for kept in ("final", "none")]
KILLS = [kill for kill in KILLS if kill[:2] != ("train", 1)]  # it is called once
KILLS += [("save_checkpoint", 0, "final"), ("save_checkpoint", 0, "best"), ("save_checkpoint", 1, "best")]
KILLS += [("measure", 0, "best"), ("nothing, but its records never reach the ledger", 0, "final")]


@pytest.mark.parametrize(("what", "calls", "checkpoints"), KILLS)
def test_killed_anywhere_it_comes_to_the_same_records(tmp_path, task_of, monkeypatch, what, calls, checkpoints):
    task = task_of(statistics=STATISTICS, checkpoints=checkpoints, epochs=3)
    reference = timeless(run(tmp_path / "whole", task)[0])
    assert len(reference) == 3
    if what.startswith("nothing"):
        run(tmp_path, task)
        discard_outcome(tmp_path, task.config.trial_key)
    else:
        where = measurement if what == "measure" else module
        original, left = getattr(where, what), [calls]

        def killed(*arguments, **values):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return original(*arguments, **values)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(where, what, killed)
            run(tmp_path, task)
        assert not (folder(tmp_path, task) / "outcome.json").exists()
    assert timeless(run(tmp_path, task)[0]) == reference


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_killed_in_training_it_goes_on_from_its_checkpoint(tmp_path, task_of, epoch):
    task = task_of(statistics=STATISTICS, epochs=3)
    events = run_group([task], tmp_path)
    for _ in range(epoch):
        next(events)
    events.close()
    assert (folder(tmp_path, task) / "state.pt").exists()
    ((record, *measured),) = run(tmp_path, task)
    assert record["resumed_from"] == epoch
    assert timeless([record, *measured]) == timeless(run(tmp_path / "whole", task)[0])


def test_a_new_statistic_is_measured_on_the_kept_weights(tmp_path, task_of, monkeypatch):
    task, later = task_of(statistics={"path": STATISTICS["path"]}), task_of(statistics=STATISTICS)
    first = run(tmp_path, task)[0]
    discard_outcome(tmp_path, task.config.trial_key)
    monkeypatch.setattr(module, "train", None)
    again = run(tmp_path, dataclasses.replace(later, statistics={"input_jacobian": STATISTICS["input_jacobian"]}))[0]
    assert [m["statistic"] for m in again[1:]] == ["input_jacobian"]
    # its record comes along, for a ledger that lost it; the one it holds stands
    assert again[0] == first[0]
    monkeypatch.undo()
    assert timeless(again[1:]) == timeless(run(tmp_path / "whole", later)[0])[2:]


def test_without_kept_weights_a_new_statistic_trains_again(tmp_path, task_of):
    task = task_of(statistics={"path": STATISTICS["path"]}, checkpoints="none")
    first = run(tmp_path, task)[0]
    discard_outcome(tmp_path, task.config.trial_key)
    assert timeless(run(tmp_path, task)[0]) == timeless(first)


def test_a_statistic_in_error_leaves_the_others_alone(tmp_path, task_of, monkeypatch):
    measure = measurement.measure

    def faulty(name, settings, context):
        if name == "path":
            raise UserError("not enough images")
        return measure(name, settings, context)

    monkeypatch.setattr(measurement, "measure", faulty)
    ((record, path, jacobian),) = run(tmp_path, task_of(statistics=STATISTICS))
    assert record["state"] == "completed"
    assert path["error"] == "not enough images" and path["estimates"] == {}
    assert jacobian["error"] == "" and jacobian["estimates"]


@pytest.mark.parametrize("together", [1, 2])
def test_what_is_evaluated_measured_and_kept_is_the_average(tmp_path, task_of, monkeypatch, together):
    task = dataclasses.replace(
        task_of(statistics=STATISTICS, ema_decay=0.9, lr=0.2), together=together, during=STATISTICS, every=1
    )
    tasks = [task, dataclasses.replace(task, config=dataclasses.replace(task.config, seed=99))][:together]
    swapped = []

    def take(self):
        swapped.append([{n: v.clone() for n, v in held.items()} for held in (self.model.state_dict(), self.average)])
        taken(self)

    def see(task, splits, num_classes, model):
        seen[task.config.seed].append(model.head.weight.detach().clone())
        return {}

    seen = defaultdict(list)
    taken = Member.take_average
    monkeypatch.setattr(measurement, "measure_during", see)
    monkeypatch.setattr(Member, "take_average", take)
    (record, *measured), *_ = run(tmp_path, *tasks)
    (live, average), *_ = swapped
    kept = load_checkpoint(folder(tmp_path, task) / "final.pt")["model"]
    assert average.keys() == {name for name, value in kept.items() if value.is_floating_point()}
    assert all(torch.equal(kept[name], average.get(name, value)) for name, value in live.items())
    assert not torch.equal(kept["head.weight"], live["head.weight"])
    data = load_dataset("fake")
    parts = split(data, task.config.split_seed)
    model = build_network(task.config, num_classes=4, mean=data.mean, deviation=data.deviation)
    found = {}
    for which, weights in (("average", kept), ("live", live)):
        model.load_state_dict(weights)
        found[which] = evaluate(model, parts.test.batches(1024))["loss"]
    assert record["metrics"]["test/loss"] == pytest.approx(found["average"], rel=1e-5)
    assert record["metrics"]["test/loss"] != pytest.approx(found["live"], rel=1e-3)
    assert record["metrics"]["val/loss"] == pytest.approx(record["curves"]["val/loss"][-1], rel=1e-5)
    assert torch.equal(seen[task.config.seed][-1], kept["head.weight"]) and len(measured) == 2
