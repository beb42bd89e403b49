"""Faults in the middle of a study: how many were made, and that nothing is lost, nothing double, and what is said is clear."""

import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import Disk, mounted
from driving import FAKE, results, write_spec
from serial import run_serially

from search_spaces import load_spec
from study.atomic import read_json
from study.cli import main
from study.commands import show
from study.config import Task
from study.errors import StorageError, UserError
from study.results.ledger import decode, segments
from study.results.workspace import Workspace
from study.training import Progress
from study.worker.group import run_group

PLANNED = 2 * 2 * 3


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spec(tmp_path_factory.mktemp("spec") / "kill.yaml", **FAKE)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    yield from mounted(tmp_path / "disk", 16)


@pytest.fixture
def task(config_of: Any) -> Task:
    return Task(
        config=config_of(), cell="fake/d8/add", phase="confirm", block=0, replicate=0, number=1, checkpoints="best",
        statistics={"path": {"num_pairs": 4, "num_steps": 4}}, keep_samples=("path",),
    )  # fmt: skip


def whole(spec: Path, storage: Path, calm_fake: Path) -> None:
    """Nothing lost, nothing double, nothing left over, every result as without faults."""
    assert results(storage) == results(calm_fake) and len(results(storage)) == PLANNED
    assert show.check(load_spec(str(spec)), Workspace(storage / "kill"), tracking=None)[0] == []
    assert not [path for path in storage.rglob(".*") if path.is_file()]


def test_a_disk_that_runs_full_stops_the_study_and_with_room_it_goes_on(
    disk: Disk, spec: Path, calm_fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ledger, checkpoints, hand-over files, tables, figures, report and MLflow's database lie on it."""
    storage, generator = disk.folder / "results", random.Random(4)
    told: list[str] = []
    monkeypatch.setattr("study.tracking.view._CLOSING_SECONDS", 0.5)
    for i in range(6):
        # first there is hardly any room, then more, so that other files are the first that do not fit
        disk.fill(free=4096 * generator.randrange(1, 24 * (i + 1)))
        try:
            run_serially(spec, storage)
        except UserError as error:
            assert "No space left on device" in str(error)
            told.append(str(error))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            told.append("")
        disk.clear()
    assert len(told) >= 4 and not any("\n" in line for line in told)
    assert run_serially(spec, storage)
    whole(spec, storage, calm_fake)
    with capsys.disabled():
        print(f"\n{len(told)} times a full disk: {sorted({line.split(' cannot')[0][-24:] for line in told})}")  # noqa: T201


def test_the_command_says_it_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a full disk comes up: here as matplotlib, jinja or Tune would meet it."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results/kill/figures/forest.svg")

    monkeypatch.setattr("study.cli.commands.opened", full)
    monkeypatch.setattr(sys, "argv", ["fmm-study", "status", "digits"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("fmm-study: results/kill/figures/forest.svg cannot be written: No space left")
        and said.count("\n") == 1
    )


def test_a_full_disk_at_every_file_of_a_member(tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """state.pt of each epoch, best.pt, final.pt, single values in Parquet, outcome.json: no failure of the replicate."""
    sync, left, names = os.fsync, [0], []

    def full(file: int) -> None:
        names.append(Path(f"/proc/self/fd/{file}").readlink().name)
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    def run(storage: Path) -> list[Any]:
        return [event for event in run_group([task], storage) if not isinstance(event, Progress)]

    def timeless(events: list[Any]) -> list[Any]:
        untold = ("train_seconds", "measure_seconds", "resumed_from")
        return [[{k: v for k, v in record.items() if k not in untold} for record in event] for event in events]

    monkeypatch.setattr(os, "fsync", full)
    reference = run(tmp_path / "calm")
    num = len(names)
    assert num >= 6, names
    for fault in range(1, num + 1):
        storage = tmp_path / str(fault)
        left[0] = fault
        with pytest.raises(StorageError, match="No space left on device"):
            run(storage)
        assert timeless(run(storage)) == timeless(reference), names[fault - 1]


def test_members_that_train_together_meet_a_full_disk(
    tmp_path: Path, config_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [
        Task(config=config_of(seed=seed), cell="c", phase="search", block=seed, replicate=seed, number=0, together=2)
        for seed in range(2)
    ]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match=r"attempts\.json cannot be written"):
        patch.setattr(os, "fsync", full)
        list(run_group(tasks, tmp_path))
    ended = [event for event in run_group(tasks, tmp_path) if not isinstance(event, Progress)]
    assert [event[0]["state"] for event in ended] == ["completed", "completed"]


def test_damaged_files_of_replicates_are_had_again(spec: Path, calm_fake: Path, tmp_path: Path) -> None:
    """Of a study broken off: torn ledger tails, and every kind of checkpoint cut short or with a flipped bit."""
    storage, generator = tmp_path / "results", random.Random(6)
    root, num = storage / "kill", 0
    for _ in range(4):
        _break_off(spec, storage, after=5)
        for path in root.glob("checkpoints/*/*"):
            data = bytearray(path.read_bytes())
            if generator.random() < 0.5:
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            path.write_bytes(data[: generator.randrange(len(data))] if generator.random() < 0.5 else data)
            num += 1
        # each start writes a segment of its own
        segment = segments(root / "ledger")[-1]
        segment.write_bytes(segment.read_bytes()[: -generator.randrange(1, 60)])
        num += 1
    assert num >= 8
    assert run_serially(spec, storage, report=False)
    assert results(storage) == results(calm_fake)
    assert list(root.rglob("*.damaged-*"))


def _break_off(spec: Path, storage: Path, after: int) -> None:
    """Run until ``after`` more epochs have been trained."""
    left = after
    told = Progress.__init__

    def count(self: Progress, *values: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        told(self, *values)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "__init__", count)
        run_serially(spec, storage)


@pytest.mark.parametrize("name", ["study.json", "claims.json", "execution.json", "provenance.json"])
def test_a_damaged_file_of_the_study_is_refused_by_name(tmp_path: Path, calm_fake: Path, spec: Path, name: str) -> None:
    for path in calm_fake.glob("kill/*.json"):
        (tmp_path / "kill").mkdir(exist_ok=True)
        data = path.read_bytes()
        (tmp_path / "kill" / path.name).write_bytes(data[: len(data) // 2] if path.name == name else data)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        run_serially(spec, tmp_path)


def test_a_damaged_hand_over_is_made_again(tmp_path: Path, task: Task) -> None:
    """As a host that loses its power leaves it, found by the worker that the trial moves to."""
    (reference,) = [event for event in run_group([task], tmp_path) if not isinstance(event, Progress)]
    (outcome,) = tmp_path.rglob("outcome.json")
    for damage in (b"", b'[{"kind": "repl', b"\xff"):
        outcome.write_bytes(damage)
        (again,) = run_group([task], tmp_path)
        assert isinstance(again, list) and again[0] == reference[0] and read_json(outcome, needs_seal=True) == again


def test_a_clock_that_goes_backwards_changes_nothing(
    spec: Path, calm_fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back by an hour at each of three starts, and running backwards all the while."""
    storage, real, begun = tmp_path / "results", time.time_ns, time.time_ns()
    for start, after in enumerate((3, 9, None)):
        monkeypatch.setattr(time, "time_ns", lambda: 2 * begun - real() - start * 3600 * 10**9)
        monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
        if after is None:
            assert run_serially(spec, storage, report=False)
        else:
            _break_off(spec, storage, after)
    monkeypatch.undo()
    whole(spec, storage, calm_fake)
    lines = [line for path in segments(storage / "kill/ledger") for line in path.read_bytes().splitlines()]
    assert None not in map(decode, lines)
    assert json.loads((storage / "kill/provenance.json").read_text())


def test_the_driver_killed_at_twenty_moments(
    spec: Path, tmp_path: Path, calm_fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of a driver that has its worker in its own process: a host that goes down. See test_storm.py for Ray's."""
    program = Path(__file__).parents[1] / "support" / "serial.py"
    command = [sys.executable, str(program), str(spec), str(tmp_path / "killed"), "20", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    whole(spec, tmp_path / "killed", calm_fake)
    with capsys.disabled():
        held, recovery = told["held"], sorted(told["recovery"])
        times = f"{recovery[0]:.1f} to {recovery[-1]:.1f} s, median {recovery[len(recovery) // 2]:.1f} s"
        print(f"\n{len(held)} kills of a driver at {held} of {PLANNED}: 0 lost, 0 double; to the next result {times}")  # noqa: T201
