"""Several processes that train one replicate (gloo, on the CPU): the training of one, and nothing lost when one of them is."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import ranks as apart
import torch
from once import once
from picture_files import write_images
from torch import multiprocessing

from study.config import Task
from study.data import load_dataset, split
from study.errors import UserError
from study.training import Progress, load_checkpoint
from study.training.process_group import Ranks
from study.worker import rank_launcher
from study.worker.group import run_group
from study.worker.rank_launcher import train_in_ranks

TASK = Task(
    config=apart.DIGITS, cell="c", phase="confirm", block=0, replicate=0, number=0, checkpoints="final", ranks=2,
    statistics={"path": {"num_pairs": 8, "num_steps": 4}}, every=10,
    during={"input_jacobian": {"num_samples": 8, "split": "val"}},
)  # fmt: skip


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """What each of two processes has trained, by case."""

    def train(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GLOO_SOCKET_IFNAME", "lo")
            multiprocessing.spawn(apart.train_all, (2, str(folder)), nprocs=2)

    folder = once(tmp_path_factory, "ranks", train)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", apart.CASES)
def test_training_by_two_is_training_by_one(by_two, name):
    weights, momenta, curves, at_end = apart.trained(apart.CASES[name])
    (first, first_momenta, first_curves, first_end), (other, other_momenta, *_) = (found[name] for found in by_two)
    assert first_end == at_end and at_end[0] == (name if name in ("diverged", "pruned") else "")
    # both ranks hold the same bits, and those of one process but for rounding
    for key, value in first.items():
        assert torch.equal(value.nan_to_num(), other[key].nan_to_num()), key
    if name == "diverged":
        assert not all(value.isfinite().all() for value in first.values())
        return
    for key, value in weights.items():
        torch.testing.assert_close(first[key], value, rtol=1e-10, atol=1e-10, msg=key)
    assert len(momenta) == len(first_momenta) == len(other_momenta)
    for mine, one in zip(first_momenta, momenta, strict=True):
        assert (mine is None) == (one is None)
        assert one is None or torch.allclose(mine, one, rtol=1e-9, atol=1e-12)
    for curve, values in curves.items():
        assert first_curves[curve] == pytest.approx(values, rel=1e-5), curve


def test_shares_are_what_is_left_of_whole_batches():
    digits = split(load_dataset("digits"), 2).train
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(1))
    whole = list(digits.epoch(order, 64, "pad_crop", 5))
    shares = [list(digits.epoch(order, 64, "pad_crop", 5, Ranks(rank, 4).rows(64))) for rank in range(4)]
    assert {len(share) for share in shares} == {len(whole)}
    for batch, *parts in zip(whole, *shares, strict=True):
        for kind in range(2):
            assert torch.equal(torch.cat([part[kind] for part in parts]), batch[kind])


def act(folder, told):
    for event in run_group([TASK], folder):
        told.send(event)


def eventually(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ranks_of(pid):
    return [child for child in psutil.Process(pid).children() if "study.worker.rank_process" in child.cmdline()]


def test_nothing_is_lost_when_the_actor_or_a_rank_is_killed(tmp_path, by_two):
    # a copy of this process stands for an actor: it only starts the ranks and watches them
    heard, told = multiprocessing.Pipe(duplex=False)
    actor = multiprocessing.get_context("fork").Process(target=act, args=(tmp_path, told))
    actor.start()
    assert heard.recv().epoch == 1
    ranks = ranks_of(actor.pid)
    assert len(ranks) == 2
    actor.kill()
    actor.join()
    eventually(lambda: not any(rank.is_running() and rank.status() != "zombie" for rank in ranks))

    events, told, killed = run_group([TASK], tmp_path), [], []
    for event in events:
        told.append(event)
        if isinstance(event, Progress) and not killed and event.epoch < 10:
            killed = ranks_of(os.getpid())
            os.kill(killed[1].pid, signal.SIGKILL)
    assert len(killed) == 2 and not ranks_of(os.getpid())
    (record, measured) = told[-1]
    assert record["state"] in ("completed", "collapsed") and record["epochs"] == 10 and record["resumed_from"] >= 1
    assert measured["error"] == "" and [point["epoch"] for point in record["trajectory"]] == [10]
    # the bits of a training that nothing befell
    final = load_checkpoint(tmp_path / "checkpoints" / TASK.config.trial_key / "final.pt")["model"]
    weights, _, curves, _ = by_two[0]["single precision"]
    assert record["curves"] == curves
    assert all(torch.equal(final[name], value) for name, value in weights.items())
    # nothing is started for what has been trained
    assert list(train_in_ranks(TASK, tmp_path / "checkpoints" / TASK.config.trial_key, device="cpu", threads=1)) == []


PLUGIN = """
import torch.distributed as dist
from study.models.merges import Merge
from study.registry import MERGES

@MERGES.register("falls", formula="x + F", source="a test", extra_params="0")
class Falls(Merge):
    def forward(self, x, f):
        if self.training and dist.get_rank() == 1:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps > 1:
                raise RuntimeError("rank 1 falls")
        return x + f
"""


def test_one_rank_that_raises_ends_all_with_its_reason(tmp_path, monkeypatch):
    """In its second step, on images that processes of its own have decoded, at a level that a plug-in brings."""
    for number, name in enumerate("ab"):
        write_images(tmp_path / "image_folder" / "train" / name, 20, size=(64, 64), seed=number)
    monkeypatch.setenv("FMM_STUDY_DATA", str(tmp_path))
    monkeypatch.setenv("FMM_STUDY_LOADERS", "1")
    (tmp_path / "falling.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    changes = {"dataset": "image_folder_224", "merge": "falls", "batch_size": 8, "width": 2}
    task = dataclasses.replace(TASK, config=dataclasses.replace(TASK.config, **changes))
    ((record,),) = list(run_group([task], tmp_path, plugins=["falling"]))
    assert record["state"] == "failed" and "RuntimeError: rank 1 falls" in record["reason"], record["reason"]
    assert not ranks_of(os.getpid())


def test_ranks_that_are_lost_again_and_again_are_a_failure(tmp_path, monkeypatch):
    """Of processes that end at once, without a word."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        UserError, match=r"its ranks were lost 4 times in a row without finishing an epoch: rank 0 ended"
    ):
        list(train_in_ranks(TASK, tmp_path, device="cpu", threads=1))


def test_a_gpu_each(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"resources\.data_parallel = 2: a GPU each is needed, but 1 are visible"):
        next(train_in_ranks(TASK, Path(tmp_path), device="cuda", threads=1))


def test_meeting_folders_of_the_dead_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "fmm-study-ranks-dead").mkdir()
    (tmp_path / "fmm-study-ranks-dead/lock").write_text("")
    (tmp_path / "fmm-study-ranks-new").mkdir()
    with rank_launcher._meeting() as first, rank_launcher._meeting() as second:
        assert first.is_dir() and second.is_dir()
        assert {path.name for path in tmp_path.iterdir()} == {"fmm-study-ranks-new", first.name, second.name}
    assert [path.name for path in tmp_path.iterdir()] == ["fmm-study-ranks-new"]
