"""A storm: twenty events of ten kinds at random moments of one study, on Ray and in one process in turn.

Nothing is lost, nothing double, all agree.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from driving import Driver, finish, log_of, num_records, results, start, write_spec

from search_spaces import load_spec
from study.commands import show
from study.results.lease import read_holder
from study.results.ledger import segments, written_records
from study.results.workspace import Workspace

pytestmark = pytest.mark.timeout(1200)

PLANNED = 3 * 3 * 3
SEED = 5
# what is sent to the driver, or to a part of its Ray
SIGNALS = {
    "worker killed": signal.SIGKILL,
    "driver killed": signal.SIGKILL,
    "Ray killed": signal.SIGKILL,
    "driver terminated": signal.SIGTERM,
    "terminal closed": signal.SIGHUP,
    "driver interrupted": signal.SIGINT,
}
# what befalls files while no driver is at work: each has the driver killed first
DAMAGE = ("ledger tail torn", "hand-over damaged", "checkpoint damaged")
KINDS = (*SIGNALS, *DAMAGE, "second driver")
# what only a driver on Ray can meet; all others are met in one process too, which begins in a third of the time
ON_RAY = ("worker killed", "Ray killed")
# what Ray calls the process of a Tune trial, idle and at work
WORKERS = ("ray::Group", "ray::ResourceTr")


def victims(driver: Driver, kind: str) -> list[psutil.Process]:
    """Whom an event strikes: one worker, raylet and control store, or the driver itself.

    Nobody before Ray has a worker: a Ray that dies while it starts is started again, and the driver outlives it.
    """
    process = psutil.Process(driver.pid)
    if kind not in ON_RAY:
        return [process]
    children = process.children(recursive=True)
    workers = [child for child in children if child.name().startswith(WORKERS)]
    if kind == "worker killed":
        return workers[:1]
    return [child for child in children if child.name() in ("raylet", "gcs_server")] if workers else []


def strike(driver: Driver, kind: str) -> bool:
    """Send what ``kind`` names; ``False`` if whom it strikes is not there yet, or no more."""
    try:
        found = victims(driver, kind)
        for process in found:
            process.send_signal(SIGNALS.get(kind, signal.SIGKILL))
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


def damage(study: Path, kind: str, generator: random.Random) -> bool:
    """Damage a file of a study at which no driver works; ``False`` if there is none of the kind."""
    if kind == "ledger tail torn":
        segment = max((study / "ledger").glob("*.jsonl"))
        with segment.open("ab") as file:
            file.write(segment.read_bytes().splitlines()[-1][: generator.randrange(1, 60)])
        return True
    names = ("outcome.json",) if kind == "hand-over damaged" else ("state.pt", "final.pt")
    found = sorted(path for name in names for path in study.glob(f"checkpoints/*/{name}"))
    if not found:
        return False
    # of weights that are kept and lost, no number is made anew: only what a training goes on from is struck
    path = next((path for path in found if path.name != "final.pt"), None)
    if path is None:
        return False
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)
    return True


def test_storm(calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, storm = write_spec(tmp_path / "kill.yaml", blocks=3), tmp_path / "storm"
    generator = random.Random(SEED)
    kinds = list(KINDS) * 2
    generator.shuffle(kinds)
    # the first driver has most before it: a second one takes seconds to start, and is refused by one at work. It lives on
    # after a worker's death too, and Ray need not start again for it
    first = ("second driver", "worker killed")
    kinds.sort(key=lambda kind: first.index(kind) if kind in first else len(first))
    recovery: list[tuple[str, float]] = []
    late = 0
    held: list[Any] = []

    def begin(coming: list[str]) -> Driver:
        """A driver for the next event that strikes it; the ledger was only ever appended to."""
        before, held[:] = held[:], list(written_records(segments(storm / "kill/ledger")))
        assert held[: len(before)] == before
        strikes = next((kind for kind in coming if kind != "second driver"), ON_RAY[0])
        return start(spec, storm, *(() if strikes in ON_RAY else ("--in-process",)), report=True)

    driver = begin(kinds)
    for i, kind in enumerate(kinds):
        # events are spread over the study's first part: results that come between them are more than one each
        after = 0.6 * PLANNED * (i + generator.random()) / (len(kinds) + 1)
        assert wait_until(lambda: num_records(storm) >= after or driver.poll() is not None, 300)
        # so short that the study outlives the events
        time.sleep(generator.random() / 4)
        if driver.poll() is not None:
            driver = begin(kinds[i:])
        if kind == "second driver":
            assert wait_until(lambda: read_holder(storm / "kill")["pid"] == driver.pid, 60)
            assert start(spec, storm, report=True).wait(120) == 2  # refused, and the first goes on
            recovery.append((kind, 0.0))
            continue
        if kind == "driver killed":  # in the midst of a training, of which an epoch is kept
            assert wait_until(lambda: any(storm.glob("kill/checkpoints/*/state.pt")) or driver.poll() is not None, 120)
        assert wait_until(lambda: strike(driver, kind) or driver.poll() is not None, 120)
        struck, there = time.monotonic(), num_records(storm)
        late += there == PLANNED
        if kind != "worker killed":
            driver.wait(120)
            if kind in DAMAGE:
                damage(storm / "kill", kind, generator)
            driver = begin(kinds[i + 1 :])
        if there < PLANNED:
            assert wait_until(lambda: num_records(storm) > there or driver.poll() is not None, 240)
        recovery.append((kind, time.monotonic() - struck))
    if driver.wait(400) != 0:
        finish(spec, storm, "--in-process", report=True)

    assert results(storm) == results(calm)
    assert len(results(storm)) == PLANNED
    replicates = [
        record for record in written_records(segments(storm / "kill/ledger")) if record["kind"] == "replicate"
    ]
    assert len(replicates) == PLANNED == len({record["trial_key"] for record in replicates})
    assert any(record["resumed_from"] for record in replicates), "no training went on from its own checkpoint"
    assert not [path for name in ("state.pt", "outcome.json") for path in storm.glob(f"kill/checkpoints/*/{name}")]
    # the ledger with itself, Optuna, tables, checkpoints, and an MLflow store in which nothing is double or RUNNING
    assert show.check(load_spec(str(spec)), Workspace(storm / "kill"), tracking=None)[0] == []
    with capsys.disabled():
        told = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in sorted(recovery))
        print(  # noqa: T201
            f"\n{len(kinds)} events, {late} of them after the last result, {PLANNED} replicates: 0 lost, 0 double; to the "
            f"next result: {told}"
        )


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
    finish(spec, storage, "--in-process")
    assert results(storage) == results(calm, blocks=1) and len(results(storage)) == 9
    assert {row["state"] for row in results(storage)} <= {"completed", "diverged", "collapsed"}
