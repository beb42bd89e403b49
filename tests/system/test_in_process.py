"""``run --in-process``: what it takes of the process, when it stops, what it refuses. Kills: test_kill.py, test_faults.py."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import fmm_study
from driving import FAKE, results, write_spec
from serial import run_serially

from search_spaces import Resources, load_spec
from study.config import Task
from study.driver import here
from study.errors import UserError
from study.planning import lazily
from study.planning.layout import lay_out
from study.resources.sharing import whole_gpu
from study.results.ledger import read_ledger
from study.training import Progress
from study.worker import group
from study.worker.group import Event

SMALL = FAKE | {"nuisance": "{}", "budget": "{search_trials: 0, startup_trials: 0}", "measure": "{}"}


def run(spec: Path, storage: Path) -> bool:
    return run_serially(spec, storage, report=False, view=False)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Four trainings in two groups."""
    return write_spec(tmp_path / "kill.yaml", **SMALL)


@pytest.fixture
def as_a_command() -> Iterator[None]:
    """Ctrl-C meets the handler that it meets in a command and in a notebook."""
    held = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, held)


@pytest.mark.parametrize(("num", "left"), [(1, 2), (2, 3)])
def test_ctrl_c_finishes_the_group_and_a_second_one_stops_at_once(
    spec: Path, tmp_path: Path, as_a_command: None, monkeypatch: pytest.MonkeyPatch, num: int, left: int
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    original = here.run_group
    told = 0

    def run_group(*args: object, **given: object) -> Iterator[Event]:
        nonlocal told
        for event in original(*args, **given):  # type: ignore[arg-type]
            yield event
            while not isinstance(event, Progress) and told < num:
                told += 1
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)

    with monkeypatch.context() as patch:
        patch.setattr(here, "run_group", run_group)
        if num == 1:
            assert not run(spec, stopped)
        else:
            with pytest.raises(KeyboardInterrupt):
                run(spec, stopped)
    assert len(read_ledger(stopped / "kill/ledger").replicates) == 4 - left
    assert run(spec, stopped) and run(spec, whole)
    assert results(stopped) == results(whole)


def test_what_it_sets_of_torch_is_as_before(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = here.run_group

    def run_group(*args: object, **given: object) -> Iterator[Event]:
        for event in original(*args, **given):  # type: ignore[arg-type]
            seen.append(state())
            yield event

    def state() -> tuple[object, ...]:
        cudnn = torch.backends.cudnn
        return torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision

    monkeypatch.setattr(here, "run_group", run_group)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    held = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = state()
        assert run(spec, tmp_path / "results")
        assert state() == before and set(seen) == {(1, False, True, "ieee")}
    finally:
        torch.set_num_threads(held)


def test_members_train_as_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_spec(tmp_path / "kill.yaml", **SMALL | {"resources": "{group: 2, fuse: always}"})
    fused = []
    original = here.run_group

    def run_group(tasks: list[Task], *args: object, **given: object) -> Iterator[Event]:
        fused.append([task.together for task in tasks])
        return original(tasks, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(here, "run_group", run_group)
    assert run(spec, tmp_path / "results")
    assert fused == [[2, 2], [2, 2]]


def test_a_member_that_fails_is_a_failed_record(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(task: Task, *_: object) -> object:
        if task.cell.endswith("mul"):
            raise RuntimeError("no kernel")
        return original(task, *_)

    original = group._member
    monkeypatch.setattr(group, "_member", broken)
    assert run(spec, tmp_path / "results")
    assert [row["state"] == "failed" for row in results(tmp_path / "results")] == [False, False, True, True]


@pytest.mark.parametrize("option", [("--address", "host:6379"), ("--num-cpus", "2"), ("--tracking-uri", "sqlite:///x")])
def test_options_of_ray_and_mlflow_are_refused(spec: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    done = fmm_study("run", str(spec), "--in-process", *option, "--storage", str(tmp_path / "results"))
    assert done.returncode == 2 and not (tmp_path / "results").exists()
    assert done.stderr.startswith(f"fmm-study: --in-process goes without {option[0]} ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("asked", "there", "fits"), [(0, 0, True), (0.25, 0, False), (0.25, 1, True), (2, 1, False)])
def test_gpus_that_are_not_here(monkeypatch: pytest.MonkeyPatch, asked: float, there: int, fits: bool) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    ask = here.asking_here(Resources(gpus=asked, data_parallel=max(1, int(asked))))
    assert ask is not None
    if fits:
        assert ask(max, 1, 2) == 2
        return
    with pytest.raises(UserError, match=f"resources.gpus = {asked:g} but torch sees {there} here"):
        ask(max, 1, 2)


@pytest.mark.parametrize(("asked", "given", "told"), [(0, 0, ""), (0.25, 1, "not the 0.25"), (1, 1, "")])
def test_a_group_has_the_gpu_to_itself(spec: Path, asked: float, given: float, told: str) -> None:
    plan, line = whole_gpu(lay_out(load_spec(str(spec), [f"resources.gpus={asked}"])))
    assert plan.spec.resources.gpus == given and told in line and bool(line) == bool(told)


def test_a_view_that_is_still_to_be_written_is_no_fault(spec: Path, tmp_path: Path) -> None:
    assert run(spec, tmp_path / "results")
    done = fmm_study("audit", str(spec), "--storage", str(tmp_path / "results"))
    told = f"not MLflow, which nothing was written to yet (fmm-study ui {tmp_path}/results/kill)"
    assert done.returncode == 0 and told in done.stdout


def test_a_search_without_optuna_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazily._optuna.cache_clear()
    monkeypatch.setitem(sys.modules, "optuna", None)
    try:
        with pytest.raises(UserError, match="a search needs Optuna, which cannot be imported here"):
            run(write_spec(tmp_path / "kill.yaml", **FAKE), tmp_path / "results")
        assert run(write_spec(tmp_path / "kill.yaml", **SMALL), tmp_path / "results")
    finally:
        lazily._optuna.cache_clear()


def test_without_ray_it_is_named(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray" or name == "study.cluster.connection"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = fmm_study("run", str(spec), "--storage", str(tmp_path / "results"))
    assert done.returncode == 2 and "Ray cannot be imported here" in done.stderr and "--in-process" in done.stderr
