"""What a finished replicate passes forward: no image twice for the same weights, and the same numbers."""

import dataclasses
from collections import defaultdict

import pytest
import torch

import study.worker.ahead as ahead
import study.worker.group as module
from study.config import Task
from study.training import Progress
from study.worker.group import discard_outcome, run_group

STATISTICS = {"path": {"num_pairs": 8, "num_steps": 4}, "input_jacobian": {"num_samples": 8}}
TIMES = ("train_seconds", "measure_seconds")


@pytest.fixture(scope="module")
def task_of(config_of):
    def make(statistics=None, **changes):
        return Task(
            config=config_of(**changes), cell="fake/d8/add", phase="confirm", block=1, replicate=1, number=0,
            statistics=statistics or {}, checkpoints="final",
        )  # fmt: skip

    return make


def records(storage, task):
    (found,) = [event for event in run_group([task], storage) if not isinstance(event, Progress)]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in found]


class Passes:
    """Counts the images that networks of replicates pass without a gradient: by what for."""

    def __init__(self, monkeypatch):
        self.seen, build = defaultdict(int), ahead.build_network

        def watched(*given, **more):
            model = build(*given, **more)
            model.register_forward_pre_hook(self.count)
            return model

        monkeypatch.setattr(ahead, "build_network", watched)
        monkeypatch.setattr(module, "_counted", {})
        monkeypatch.setattr(module, "num_flops", lambda *_: 0)

    def count(self, model, given):
        if not torch.is_grad_enabled():
            estimating = any(isinstance(part, torch.nn.BatchNorm2d) and part.training for part in model.modules())
            self.seen["estimated" if estimating else "evaluated"] += len(given[0])


# 48 images to train on, 16 to validate on, 32 to test on; an epoch ends with a look at the 16
@pytest.mark.parametrize(
    ("changes", "estimated", "evaluated"),
    [
        # eight to see which layers take statistics; evaluated as trained and as estimated
        ({}, 8 + 48, 16 + 2 * (48 + 16 + 32)),
        # nothing to estimate: evaluated once
        ({"norm": "none", "lr": 1e-4}, 0, 16 + 48 + 16 + 32),
        # validated on the test images: 64 to train on
        ({"validation": "test"}, 8 + 64, 32 + 2 * (64 + 32)),
    ],
)
def test_nothing_is_passed_twice_for_the_same_weights(tmp_path, task_of, monkeypatch, changes, estimated, evaluated):
    passes, task = Passes(monkeypatch), task_of(epochs=1, **changes)
    records(tmp_path / "bare", task)
    assert passes.seen == {"evaluated": evaluated} | ({"estimated": estimated} if estimated else {})
    bare = dict(passes.seen)
    statistics = {"input_jacobian": {"num_samples": 4}}
    _, measured = records(tmp_path / "measured", dataclasses.replace(task, statistics=statistics))
    # what is measured needs batch norm's statistics, and takes those that were estimated
    assert passes.seen["estimated"] - bare.get("estimated", 0) == estimated and not measured["error"]


@pytest.mark.parametrize(
    "changes", [{}, {"norm": "group", "width": 16}, {"merge": "mul", "attention": "se", "attention_form": "mul"}]
)
def test_what_is_measured_at_once_is_what_is_measured_on_kept_weights(tmp_path, task_of, changes):
    task = task_of(statistics=STATISTICS, **changes)
    at_once = records(tmp_path, task)
    discard_outcome(tmp_path, task.config.trial_key)
    later = records(tmp_path, task)  # batch norm is estimated anew on final.pt
    assert at_once == later and all(record["estimates"] for record in at_once[1:])
