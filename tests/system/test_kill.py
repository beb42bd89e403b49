"""A worker lost in the midst of its group, a second driver, Ctrl-C: nothing is run or counted twice (kills: test_storm.py)."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from driving import finish, log_of, num_records, results, start, write_spec

from study.results.ledger import read_ledger

pytestmark = pytest.mark.timeout(1200)

PLANNED = 3 * 2 * 3


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spec(tmp_path_factory.mktemp("spec") / "kill.yaml")


def test_a_group_that_loses_its_worker_trains_no_finished_member_again(tmp_path: Path) -> None:
    """Also those whose records the driver has taken, of a search, which keeps no weights."""
    storage = tmp_path / "lost"
    spec = write_spec(
        tmp_path / "kill.yaml", factors="{merge: [add], attention: [none], attention_form: [none], depth: [8]}",
        blocks=3, budget="{search_trials: 1, startup_trials: 1}", resources="{cpus: 1, group: 3}", contrasts="[]",
        # a second each: long enough to be caught at the third
        fixed="{dataset: digits, width: 8, epochs: 12, batch_size: 128}",
    )  # fmt: skip
    driver = start(spec, storage, "--num-cpus", "1")

    def training() -> set[str]:
        return {path.parent.name for path in (storage / "kill/checkpoints").glob("*/state.pt")}

    deadline = time.monotonic() + 300
    while num_records(storage) < 2 or not training():
        assert driver.poll() is None and time.monotonic() < deadline, log_of(storage).read_text()
        time.sleep(0.02)
    finished = set(read_ledger(storage / "kill/ledger").replicates)
    assert len(finished) == 2, "the group was to be at work on its third"
    for process in psutil.Process(driver.pid).children(recursive=True):
        if process.name().startswith(("ray::Group", "ray::ResourceTr")):
            process.kill()
    again: set[str] = set()
    while driver.poll() is None:
        again |= training() & finished
        time.sleep(0.01)
    assert driver.wait(300) == 0, log_of(storage).read_text()
    assert num_records(storage) == 6 and not again
    assert not list((storage / "kill/checkpoints").rglob("outcome.json"))


def test_a_second_driver_is_refused_and_ctrl_c_drains(spec: Path, calm: Path, tmp_path: Path) -> None:
    """Ctrl-C as a terminal does it: the signal goes to the whole process group, workers included."""
    storage = tmp_path / "drained"
    driver = start(spec, storage)
    while not (storage / "kill/driver.json").exists():
        assert driver.poll() is None, log_of(storage).read_text()
        time.sleep(0.02)
    assert start(spec, storage).wait(timeout=120) == 2
    assert f"is being run by process {driver.pid}" in log_of(storage).read_text()
    while num_records(storage) < 1:
        assert driver.poll() is None, log_of(storage).read_text()
        time.sleep(0.02)
    held = num_records(storage)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=120) == 130
    log = log_of(storage).read_text()
    assert "The same command continues; nothing is lost." in log
    assert "Traceback" not in log
    # the groups that were running are finished, and no other was begun
    assert held <= num_records(storage) < PLANNED
    assert not list((storage / "kill/checkpoints").glob("*/state.pt"))
    finish(spec, storage, "--in-process")
    assert results(storage) == results(calm, blocks=2)
