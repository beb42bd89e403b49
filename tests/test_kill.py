"""kill -9 of the driver at three moments: the same command continues, nothing is lost, nothing is run or counted twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study.ledger import decode, read_ledger, segments
from study.schema import TIMING_COLUMNS

pytestmark = pytest.mark.slow

SPEC = """
name: kill
seed: 7
factors: {merge: [add, sig_bn, mul], attention: [none], attention_form: [none], depth: [8]}
fixed: {dataset: digits, width: 8, epochs: 24, batch_size: 128}
nuisance: {lr: {low: 0.03, high: 1.0, log: true, default: 0.2}}
blocks: 2
budget: {search_trials: 2, startup_trials: 1}
resources: {cpus: 1, group: 2}
measure: {statistics: {input_jacobian: {num_samples: 32}}}
contrasts: [{arm: {merge: mul}, reference: {merge: add}}]
"""
PLANNED = 3 * 2 * 3


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "kill.yaml"
    path.write_text(SPEC)
    return path


def start(spec: Path, storage: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from study.cli import main; main()", "run", str(spec), "--storage", str(storage)]
    with (storage.parent / f"{storage.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def finish(spec: Path, storage: Path) -> None:
    assert start(spec, storage).wait(timeout=400) == 0, (storage.parent / f"{storage.name}.log").read_text()


def results(storage: Path) -> list[dict[str, object]]:
    table = pq.read_table(storage / "kill/tables/trials.parquet")
    return table.drop_columns(list(TIMING_COLUMNS)).to_pylist()


def num_records(storage: Path) -> int:
    return len(read_ledger(storage / "kill/ledger").replicates)


def kill_at(spec: Path, storage: Path, records: int) -> tuple[set[str], set[str]]:
    """Kill the driver once ``records`` replicates are in the ledger and one is in training with a checkpoint.

    Returns the keys finished and the keys in training at that moment.
    """
    driver = start(spec, storage)
    checkpoints = storage / "kill/checkpoints"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and driver.poll() is None:
        training = {path.parent.name for path in checkpoints.glob("*/state.pt")}
        if num_records(storage) >= records and training:
            break
        time.sleep(0.02)
    else:
        pytest.fail(f"no such moment: {(storage.parent / f'{storage.name}.log').read_text()}")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    return set(read_ledger(storage / "kill/ledger").replicates), training


def test_three_kills_change_nothing(spec: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(spec, whole)
    finished: set[str] = set()
    training: set[str] = set()
    lines: list[bytes] = []
    for records in (0, 5, PLANNED - 4):
        before = lines
        done, in_flight = kill_at(spec, broken, records)
        lines = [line for path in segments(broken / "kill/ledger") for line in path.read_bytes().splitlines()]
        assert lines[: len(before)] == before, "the ledger is only ever appended to"
        assert done >= finished
        finished, training = done, training | in_flight
    finish(spec, broken)

    assert results(broken) == results(whole)
    assert len(results(broken)) == PLANNED
    records = [decode(line) for path in segments(broken / "kill/ledger") for line in path.read_bytes().splitlines()]
    replicates = [record for record in records if record is not None and record["kind"] == "replicate"]
    assert len(replicates) == PLANNED == len({record["trial_key"] for record in replicates})
    resumed = {record["trial_key"] for record in replicates if record["resumed_from"]}
    assert resumed & training, "no replicate that was in training went on from its own checkpoint"
    left = [path for path in (broken / "kill/checkpoints").rglob("*") if path.name in ("state.pt", "outcome.json")]
    assert not left


def test_a_finished_study_runs_nothing_again(spec: Path, tmp_path: Path) -> None:
    storage = tmp_path / "again"
    finish(spec, storage)
    ledger = [path.read_bytes() for path in segments(storage / "kill/ledger")]
    first = results(storage)
    finish(spec, storage)
    assert [path.read_bytes() for path in segments(storage / "kill/ledger")] == ledger
    assert results(storage) == first


def test_a_second_driver_is_refused_by_name(spec: Path, tmp_path: Path) -> None:
    storage = tmp_path / "two"
    first = start(spec, storage)
    try:
        while not (storage / "kill/driver.json").exists():
            time.sleep(0.05)
        second = start(spec, storage)
        assert second.wait(timeout=120) == 2
        assert f"is being run by process {first.pid}" in (tmp_path / "two.log").read_text()
    finally:
        first.kill()
        first.wait()
