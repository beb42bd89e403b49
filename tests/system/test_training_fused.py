"""Replicates that train together: as alone; who drops out, what a kill or a full memory leaves."""

import dataclasses
import itertools
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from trainings import train

import study.training.fused as module
import study.training.member as member_module
from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.parts import Together
from study.models import build_network
from study.training import Progress, load_checkpoint
from study.training.fused import Ended, fused_with, train_together
from study.training.member import Member
from study.training.stack import obstacle
from study.training.stacked import StackedSGD

CONFIG = TrialConfig(dataset="fake", depth=8, width=4, seed=0, split_seed=2, epochs=4, batch_size=16, lr=0.05)
CONFIGS = [
    dataclasses.replace(CONFIG, seed=seed, split_seed=seed, lr=0.03 * (seed + 1), weight_decay=1e-3 * seed)
    for seed in range(4)
]
RECIPE = {
    "optimizer": "adamw", "decayed": "weights", "clip_norm": 0.5, "label_smoothing": 0.1, "mixup": 0.4, "ema_decay": 0.8
}  # fmt: skip


def member(config, folder=None):
    data, parts = load_dataset("fake"), split(load_dataset("fake"), config.split_seed)
    model = build_network(config, num_classes=data.num_classes, mean=data.mean, deviation=data.deviation)
    path = folder / f"{config.seed}.pt" if folder else None
    return Member(model=model, train_split=parts.train, val_split=parts.val, config=config, checkpoint=path)


def run(configs, folder=None, stop_after=None, members=None, **given):
    """The members and what each came to; ``stop_after`` events the training is dropped, as by a kill."""
    members = members or [member(config, folder) for config in configs]
    events = list(itertools.islice(train_together(members, Together, **given), stop_after))
    return members, {event.index: event.outcome for event in events if isinstance(event, Ended)}


def alone(config, folder=None):
    one = member(config, folder)
    *_, trained = train(one.model, one.train_split, one.val_split, config, one.checkpoint)
    return one.model, trained


def assert_alike(model, other, exact=False):
    other = other.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other[name], msg=name, **({"rtol": 0, "atol": 0} if exact else CLOSE))


CLOSE = {"rtol": 2e-3, "atol": 2e-4}  # float32, after some epochs


def test_what_may_differ_among_members_and_what_not():
    free = {"seed": 9, "split_seed": 9, "lr": 1.0, "momentum": 0.1, "weight_decay": 0.1, "warmup_epochs": 1.0}
    free |= {"schedule": "constant", "stop_curve": (1.0,), "epochs": 9}
    for name, value in free.items():
        assert fused_with(dataclasses.replace(CONFIG, **{name: value})) == fused_with(CONFIG), name
    others = {"network": "wrn", "depth": 14, "width": 8, "merge": "mul", "merge_site": "branch", "merge_where": "last"}
    others |= {"attention": "se", "attention_form": "mul", "batch_size": 8, "augment": "flip", "dropout": 0.1}
    others |= {"dataset": "digits", "jacobian_penalty": 0.1, "last_batch": "keep", "optimizer_made": "each_epoch"}
    others |= {
        "attention_where": "last",
        "keywords": (("variant", "a"),),
        "optimizer": "adamw",
        "decayed": "weights",
        "clip_norm": 1.0,
    }
    others |= {"label_smoothing": 0.1, "mixup": 0.1, "ema_decay": 0.1}
    others |= {"norm": "group", "activation": "gelu"}
    others |= {"norm_momentum": 0.5, "norm_parts": 2, "input_moments": "imagenet", "validation": "test"}
    for name, value in others.items():
        assert fused_with(dataclasses.replace(CONFIG, **{name: value})) != fused_with(CONFIG), name
    adamw = dataclasses.replace(CONFIG, optimizer="adamw")
    assert fused_with(dataclasses.replace(adamw, beta2=0.9)) == fused_with(adamw)
    assert {*free, *others, "beta2"} == {field.name for field in dataclasses.fields(CONFIG)}
    for name in ("jacobian_penalty", "clip_norm", "label_smoothing", "mixup", "ema_decay"):
        switched = [dataclasses.replace(CONFIG, **{name: strength}) for strength in (0.1, 0.2)]
        assert fused_with(switched[0]) == fused_with(switched[1]), name
    with pytest.raises(ValueError, match="may not differ"):
        list(train_together([member(CONFIG), member(dataclasses.replace(CONFIG, merge="mul"))], Together))


def test_together_as_alone_over_some_epochs():
    members, ended = run(CONFIGS)
    for index, config in enumerate(CONFIGS):
        model, trained = alone(config)
        assert_alike(members[index].model, model)
        assert ended[index].epoch == 4 and ended[index].stopped == "" and ended[index].train_seconds > 0
        for name, curve in trained.curves.items():
            assert ended[index].curves[name] == pytest.approx(curve, rel=1e-2), name
        assert ended[index].best_epoch == trained.best_epoch
        assert ended[index].best.keys() == trained.best.keys()


@pytest.mark.parametrize("changes", [{}, RECIPE])
def test_an_epoch_asks_the_device_for_no_number(changes):
    """The host waits where a value is read: as often in an epoch of many steps as in one of few."""

    class Reads(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = Counter()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen[str(func)] += 1
            return func(*args, **(kwargs or {}))

    counted = []
    for batch in (16, 4):
        config = dataclasses.replace(CONFIG, network="wrn", depth=10, width=1, dropout=0.3, batch_size=batch, **changes)
        lane = module.Lane([member(dataclasses.replace(config, seed=seed)) for seed in (1, 2)], Together)
        with Reads() as mode:
            lane.train(0)
            lane.evaluate()
        assert mode.seen["aten.convolution.default"] > 10
        counted.append({n: k for n, k in mode.seen.items() if "_local_scalar" in n or "nonzero" in n or "equal" in n})
    assert counted[0] == counted[1]


@pytest.mark.parametrize("how", ["diverges", "is pruned", "is NaN from the start"])
def test_one_that_drops_out_does_not_touch_the_others(how):
    changed = {"diverges": {"lr": 1e6}, "is pruned": {"stop_curve": (0.0,) * 4}}.get(how, {})
    lost = dataclasses.replace(CONFIGS[1], **changed)
    members = [member(config) for config in [CONFIGS[0], lost, *CONFIGS[2:]]]
    if how.endswith("start"):
        nn.init.constant_(members[1].model.get_parameter("stages.0.0.conv1.weight"), math.nan)
    seen = []
    built = module.Lane.__init__

    def watched(self, chosen, *given):
        seen.append(len(chosen))
        built(self, chosen, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Lane, "__init__", watched)
        _, ended = run([], members=members)
    assert (ended[1].stopped, ended[1].epoch) == ("pruned" if "pruned" in how else "diverged", 1)
    assert seen == [4, 3]  # no further work for the lost one
    others, _ = run([CONFIGS[0], *CONFIGS[2:]])
    for index, other in zip((0, 2, 3), others, strict=True):
        assert ended[index].stopped == "" and ended[index].epoch == 4
        assert_alike(members[index].model, other.model)


def test_one_left_over_trains_as_if_alone():
    config = dataclasses.replace(CONFIGS[1], epochs=2)
    members, ended = run([CONFIGS[0], config])
    assert [ended[index].epoch for index in (0, 1)] == [4, 2]
    assert_alike(members[0].model, alone(CONFIGS[0])[0])
    assert_alike(members[1].model, alone(config)[0])


LITERAL = {"optimizer_made": "each_epoch", "last_batch": "keep", "norm_parts": 2, "norm_momentum": 0.3}


@pytest.mark.parametrize(("told", "changes"), [(1, {}), (4, {}), (6, {}), (8, {}), (15, {}), (6, LITERAL)])
def test_killed_anywhere_it_goes_on_to_the_same_weights(tmp_path, told, changes):
    configs = [dataclasses.replace(config, **changes) for config in CONFIGS]
    whole, ended = run(configs)
    run(configs, tmp_path, stop_after=told)
    members, again = run(configs, tmp_path)
    for index, one in enumerate(members):
        # by then all had written the epoch's checkpoint: the same cohort goes on, bit for bit
        assert_alike(one.model, whole[index].model, exact=True)
        assert again[index].curves == ended[index].curves
        # what had ended is not taken for broken off
        assert again[index].resumed_from == ((told - 1) // 4 + 1 if told <= 12 else 0)


def test_killed_between_two_checkpoints_those_behind_catch_up(tmp_path, monkeypatch):
    whole, _ = run(CONFIGS)
    save, left = member_module.save_checkpoint, [6]

    def killed(state, path):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        save(state, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(member_module, "save_checkpoint", killed)
        run(CONFIGS, tmp_path)
    assert [load_checkpoint(tmp_path / f"{seed}.pt")["epoch"] for seed in range(4)] == [2, 2, 1, 1]
    members, ended = run(CONFIGS, tmp_path)
    for index, one in enumerate(members):
        assert_alike(one.model, whole[index].model)
        assert ended[index].epoch == 4 and len(ended[index].curves["val/loss"]) == 4


def test_begun_together_it_goes_on_alone_and_the_other_way_round(tmp_path):
    run(CONFIGS[:2], tmp_path / "a", stop_after=4)
    for config in CONFIGS[:2]:
        model, trained = alone(config, tmp_path / "a")
        assert trained.resumed_from == 2 and trained.epoch == 4
        assert_alike(model, alone(config)[0])
    for config in CONFIGS[:2]:
        one = member(config, tmp_path / "b")
        list(itertools.islice(train(one.model, one.train_split, one.val_split, config, one.checkpoint), 2))
    members, ended = run(CONFIGS[:2], tmp_path / "b")
    for index, config in enumerate(CONFIGS[:2]):
        assert ended[index].resumed_from == 2
        assert_alike(members[index].model, alone(config)[0])


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: can't allocate")])
def test_out_of_memory_halves_the_group_and_changes_nothing(monkeypatch, fault):
    step, sizes = StackedSGD.step, []

    def full(self, gradients, rates):
        sizes.append(len(self._stack))
        # in the middle of an epoch, after a step that must not count
        if len(self._stack) > 2 and len(sizes) > 1:
            raise fault
        step(self, gradients, rates)

    whole, _ = run(CONFIGS)
    monkeypatch.setattr(StackedSGD, "step", full)
    with pytest.warns(UserWarning, match="out of memory.*on with 2 at once"):
        members, ended = run(CONFIGS)
    assert sizes[:3] == [4, 4, 2] and set(sizes[2:]) == {2}
    for index, one in enumerate(members):
        assert ended[index].epoch == 4
        assert_alike(one.model, whole[index].model)


def test_in_turns_of_two_as_all_at_once():
    whole, _ = run(CONFIGS[:3])
    members, ended = run(CONFIGS[:3], at_once=2)
    for index, one in enumerate(members):
        assert ended[index].epoch == 4
        assert_alike(one.model, whole[index].model)


def test_a_fault_is_its_members_own():
    members = [member(config) for config in CONFIGS[:3]]

    def unreadable(*_):
        raise OSError("a file is gone")

    members[1].train_split.stored = torch.zeros(0)
    with pytest.warns(UserWarning, match="could not train together"):
        _, ended = run([], members=members)
    assert isinstance(ended[1], Exception) and [ended[index].epoch for index in (0, 2)] == [4, 4]
    assert_alike(members[0].model, alone(CONFIGS[0])[0])


def test_progress_is_told_of_each_member_and_epoch():
    events = list(train_together([member(config) for config in CONFIGS[:2]], Together))
    told = [(event.epoch, event.epochs) for event in events if isinstance(event, Progress)]
    assert told == [(epoch, 4) for epoch in (1, 2, 3, 4) for _ in range(2)]
    assert [event.index for event in events if isinstance(event, Ended)] == [0, 1]


class Kept(nn.Module):
    """Draws each step, and keeps it where no stack can reach it."""

    def start_step(self, seed):
        self.mask = seed

    def forward(self, x):
        return x


def test_what_cannot_be_stacked_is_named_and_trains_one_by_one():
    assert "draws each step" in obstacle(nn.Sequential(Kept()))
    members = [member(config) for config in CONFIGS[:2]]
    for one in members:
        one.model.add_module("kept", Kept())
    with pytest.warns(UserWarning, match="draws each step"):
        _, ended = run([], members=members)
    assert [ended[index].epoch for index in (0, 1)] == [4, 4]
    assert_alike(members[0].model, alone(CONFIGS[0])[0], exact=True)


def test_the_time_of_an_epoch_is_shared_by_those_who_trained_together(monkeypatch):
    clock = itertools.count(step=6.0)  # every epoch takes six seconds
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    _, ended = run([dataclasses.replace(config, epochs=2) for config in CONFIGS[:3]])
    assert [ended[index].train_seconds for index in range(3)] == [4.0, 4.0, 4.0]


class Idle:
    """A lane that trains nothing."""

    def __init__(self, members, abreast, options):
        self.members = members

    def epoch(self, epoch):
        return [{} for _ in self.members]


def test_a_lane_is_kept_until_one_of_its_members_trains_in_another(monkeypatch):
    monkeypatch.setattr(module, "Lane", Idle)
    collected = []
    monkeypatch.setattr(module.gc, "collect", lambda: collected.append(True))
    a, b, c, d = "abcd"
    lanes = module._Lanes(None, ())

    def held(*cohort):
        lanes.epoch(list(cohort), 0)
        return [lane.members for lane in lanes._held]

    assert held(a, b) == [[a, b]] and held(c, d) == [[a, b], [c, d]]
    first = lanes._held[0]
    assert held(a, b) == [[a, b], [c, d]] and lanes._held[0] is first and not collected
    assert held(b, c) == [[b, c]] and len(collected) == 1


def test_a_full_memory_is_told_as_such():
    with pytest.warns(
        UserWarning, match=r"^4 replicates could not train together \(out of memory\): on with 2 at once$"
    ):
        assert module._fewer(4, torch.OutOfMemoryError("CUDA out of memory")) == 2
    with pytest.warns(
        UserWarning, match=r"^4 replicates could not train together \(ValueError: no\): on with 1 at once$"
    ):
        assert module._fewer(4, ValueError("no\nmore")) == 1
