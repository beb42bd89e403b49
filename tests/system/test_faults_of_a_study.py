"""One real study through a full disk, a notice to stop, a locked MLflow database and a clock set back."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import Disk, mounted
from driving import log_of, num_records, results, start, write_spec
from serial import run_serially

from search_spaces import load_spec
from study.commands import show
from study.results.ledger import segments
from study.results.workspace import Workspace

PLANNED = 3 * 2 * 3
# Python's clocks stand an hour and more back once the file is there, and go backwards from then on
CLOCK = """
import os, time
_time, _time_ns = time.time, time.time_ns
def _back(now):
    return 3600 + 2 * (now - os.stat({flag!r}).st_mtime) if os.path.exists({flag!r}) else 0.0
time.time = lambda: (now := _time()) - _back(now)
time.time_ns = lambda: (now := _time_ns()) - int(1e9 * _back(now / 1e9))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    yield from mounted(tmp_path / "disk", 32)


def last_line(storage: Path) -> str:
    return log_of(storage).read_text().strip().splitlines()[-1]


def test_a_rough_study(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path / "kill.yaml", fixed="{dataset: digits, width: 4, epochs: 4, batch_size: 128}")
    storage, database = disk.folder / "storage", tmp_path / "mlflow.db"
    storage.mkdir()
    tracked = ("--tracking-uri", f"sqlite:///{database}")
    clock = tmp_path / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(CLOCK.format(flag=str(clock / "set back")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(clock), os.environ.get("PYTHONPATH", "")]))

    # the disk runs full, while another program holds MLflow's database
    with sqlite3.connect(database) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN EXCLUSIVE")
        process = start(spec, storage, *tracked)
        while num_records(storage) < 2:
            assert process.poll() is None, log_of(storage).read_text()
            time.sleep(0.02)
        disk.fill(free=4096)
        assert process.wait(120) == 2
        other.rollback()
    full, broken_off = num_records(storage), set(storage.glob("kill/checkpoints/*/state.pt"))
    told = last_line(storage)
    assert "cannot be written: No space left on device; when that is mended the same command continues" in told
    assert "Traceback" not in log_of(storage).read_text() and full < PLANNED
    assert "database is locked" in log_of(storage).read_text()

    # with room again, and a clock that goes backwards, the same command goes on; then it is asked to stop
    disk.clear()
    (clock / "set back").touch()
    begun = time.monotonic()
    process = start(spec, storage, *tracked)
    while num_records(storage) <= full:
        assert process.poll() is None, log_of(storage).read_text()
        time.sleep(0.02)
    recovery = time.monotonic() - begun
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 130
    stopping = time.monotonic() - begun
    assert last_line(storage) == "Stopped. The same command continues; nothing is lost."
    stopped = num_records(storage)
    assert full < stopped < PLANNED
    # running groups were finished (what the full disk broke off may not have begun again), no trace of the driver is left
    assert (
        set(storage.glob("kill/checkpoints/*/state.pt")) <= broken_off and not (storage / "kill/driver.json").exists()
    )

    assert start(spec, storage, *tracked).wait(300) == 0, log_of(storage).read_text()
    run_serially(spec, tmp_path / "calm", report=False)
    assert results(storage) == results(tmp_path / "calm")
    lines = [line for path in segments(storage / "kill/ledger") for line in path.read_bytes().splitlines()]
    keys = [json.loads(line[9:]).get("measure_key", json.loads(line[9:])["trial_key"]) for line in lines]
    assert len(set(keys)) == len(keys)
    workspace = Workspace(storage / "kill")
    assert show.check(load_spec(str(spec)), workspace, tracking=f"sqlite:///{database}")[0] == []
    with capsys.disabled():
        print(f"\nfull disk after {full}, SIGTERM after {stopped} of {PLANNED}: 0 lost, 0 double; "  # noqa: T201
              f"{recovery:.1f} s to the next result, {stopping:.1f} s to stop")  # fmt: skip
