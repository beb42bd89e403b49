"""A storm: worker, driver and the whole of Ray killed at random moments. Nothing lost, nothing double, all agree."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from driving import finish, log_of, num_records, results, start, write_spec

from search_spaces import load_spec
from study.commands import show
from study.results.workspace import Workspace

pytestmark = pytest.mark.timeout(1200)

PLANNED = 3 * 3 * 3
NUM_KILLS = 12
SEED = 5
# what Ray calls the process of a Tune trial, idle and at work
WORKERS = ("ray::Group", "ray::ResourceTr")


def victims(driver: subprocess.Popen[bytes], kind: str) -> list[psutil.Process]:
    """Processes of this driver's Ray to kill: one busy worker, the driver itself, or raylet and control store."""
    process = psutil.Process(driver.pid)
    if kind == "driver":
        return [process]
    family = process.children(recursive=True)
    if kind == "worker":
        return [p for p in family if p.name().startswith(WORKERS)][:1]
    return [p for p in family if p.name() in ("raylet", "gcs_server")]


def strike(driver: subprocess.Popen[bytes], kind: str) -> bool:
    """Kill what ``kind`` names; ``False`` if it is not there yet, or no more."""
    try:
        found = victims(driver, kind)
        for process in found:
            process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return bool(found)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_storm(calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, storm = write_spec(tmp_path / "kill.yaml", blocks=3), tmp_path / "storm"
    generator = random.Random(SEED)
    kinds = ["worker", "driver", "ray"] * (NUM_KILLS // 3)
    generator.shuffle(kinds)
    recovery: list[tuple[str, float]] = []
    driver = start(spec, storm, report=True)
    for i, kind in enumerate(kinds):
        # strikes are spread over the study: the i-th comes somewhere in its i-th part
        after = PLANNED * (i + generator.random()) / (NUM_KILLS + 1)
        assert wait_until(lambda: num_records(storm) >= after or driver.poll() is not None, 300)
        time.sleep(generator.random())
        if driver.poll() is not None or not wait_until(lambda: strike(driver, kind), 60):
            driver.wait(60)
            driver = start(spec, storm, report=True)
            assert wait_until(lambda: strike(driver, kind) or driver.poll() is not None, 120)
        struck, held = time.monotonic(), num_records(storm)
        if kind != "worker":
            driver.wait(120)
            driver = start(spec, storm, report=True)
        if held < PLANNED:
            assert wait_until(lambda: num_records(storm) > held or driver.poll() is not None, 240)
            recovery.append((kind, time.monotonic() - struck))
    if driver.wait(400) != 0:
        finish(spec, storm, report=True)

    assert results(storm) == results(calm)
    assert len(results(storm)) == PLANNED
    # the ledger with itself, Optuna, tables, checkpoints, and an MLflow store in which nothing is double or RUNNING
    assert show.check(load_spec(str(spec)), Workspace(storm / "kill"), tracking=None)[0] == []
    with capsys.disabled():
        told = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in recovery)
        print(f"\n{NUM_KILLS} kills of {PLANNED} replicates: 0 lost, 0 double; to the next result: {told}")  # noqa: T201


def test_a_ray_that_starts_no_more_workers_fails_no_replicate(calm: Path, tmp_path: Path) -> None:
    """Without raylet a lost worker cannot be replaced: that speaks against Ray, not against what it was training."""
    spec = write_spec(tmp_path / "kill.yaml", blocks=1, resources="{cpus: 1, group: 1}")
    storage = tmp_path / "storage"
    driver = start(spec, storage)
    assert wait_until(lambda: num_records(storage) >= 1, 120), log_of(storage).read_text()
    session = [p for p in psutil.process_iter() if os.getsid(p.pid) == driver.pid and p.pid != driver.pid]
    for names in (("raylet",), WORKERS):
        for process in session:
            if process.is_running() and process.name().startswith(names):
                process.kill()
    assert driver.wait(120) == 2
    log = log_of(storage).read_text()
    assert "the same command continues; nothing is lost" in log.splitlines()[-1]
    assert num_records(storage) < 9
    finish(spec, storage)
    assert results(storage) == results(calm, blocks=1) and len(results(storage)) == 9
    assert {row["state"] for row in results(storage)} <= {"completed", "diverged", "collapsed"}
