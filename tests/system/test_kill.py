"""kill -9 of the driver at three moments: the same command continues, nothing is lost, nothing is run or counted twice."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from driving import finish, log_of, num_records, results, start, write_spec

from study.results.ledger import decode, read_ledger, segments

pytestmark = pytest.mark.timeout(1200)

PLANNED = 3 * 2 * 3


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spec(tmp_path_factory.mktemp("spec") / "kill.yaml")


def kill_at(spec: Path, storage: Path, records: int, *options: str) -> tuple[set[str], set[str]]:
    """Kill the driver once ``records`` replicates are in the ledger and one is in training with a checkpoint.

    Returns the keys finished and the keys in training at that moment.
    """
    driver = start(spec, storage, *options)
    checkpoints = storage / "kill/checkpoints"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and driver.poll() is None:
        training = {path.parent.name for path in checkpoints.glob("*/state.pt")}
        if num_records(storage) >= records and training:
            break
        time.sleep(0.02)
    else:
        pytest.fail(f"no such moment: {log_of(storage).read_text()}")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    return set(read_ledger(storage / "kill/ledger").replicates), training


def test_three_kills_change_nothing(spec: Path, calm: Path, tmp_path: Path) -> None:
    """On Ray and in one process in turn: each goes on from what the other left."""
    broken = tmp_path / "broken"
    finished: set[str] = set()
    training: set[str] = set()
    lines: list[bytes] = []
    for records, options in ((0, ()), (5, ("--in-process",)), (PLANNED - 4, ())):
        before = lines
        done, in_flight = kill_at(spec, broken, records, *options)
        lines = [line for path in segments(broken / "kill/ledger") for line in path.read_bytes().splitlines()]
        assert lines[: len(before)] == before, "the ledger is only ever appended to"
        assert done >= finished
        finished, training = done, training | in_flight
    finish(spec, broken)

    assert results(broken) == results(calm, blocks=2)
    assert len(results(broken)) == PLANNED
    records = [decode(line) for path in segments(broken / "kill/ledger") for line in path.read_bytes().splitlines()]
    replicates = [record for record in records if record is not None and record["kind"] == "replicate"]
    assert len(replicates) == PLANNED == len({record["trial_key"] for record in replicates})
    resumed = {record["trial_key"] for record in replicates if record["resumed_from"]}
    assert resumed & training, "no replicate that was in training went on from its own checkpoint"
    left = [path for path in (broken / "kill/checkpoints").rglob("*") if path.name in ("state.pt", "outcome.json")]
    assert not left

    # a finished study runs nothing again
    ledger = [path.read_bytes() for path in segments(broken / "kill/ledger")]
    finish(spec, broken)
    assert [path.read_bytes() for path in segments(broken / "kill/ledger")] == ledger
    assert results(broken) == results(calm, blocks=2)


def test_a_group_that_loses_its_worker_trains_no_finished_member_again(tmp_path: Path) -> None:
    """Also those whose records the driver has taken, of a search, which keeps no weights."""
    storage = tmp_path / "lost"
    spec = write_spec(
        tmp_path / "kill.yaml", factors="{merge: [add], attention: [none], attention_form: [none], depth: [8]}",
        blocks=3, budget="{search_trials: 1, startup_trials: 1}", resources="{cpus: 1, group: 3}", contrasts="[]",
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
    assert driver.wait() == 0, log_of(storage).read_text()
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
    finish(spec, storage)
    assert results(storage) == results(calm, blocks=2)
