"""Driving the real command line in tests that kill things: start it, wait for it, read what it left."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from study.results.ledger import read_ledger
from study.schema import TIMING_COLUMNS


def write_spec(path: Path, **changes: object) -> Path:
    """A small study of real trainings, some seconds each; ``changes`` are lines put in place of its own."""
    lines = {
        "name": "kill",
        "seed": "7",
        "factors": "{merge: [add, sig_bn, mul], attention: [none], attention_form: [none], depth: [8]}",
        "fixed": "{dataset: digits, width: 8, epochs: 20, batch_size: 128}",
        "nuisance": "{lr: {low: 0.03, high: 1.0, log: true, default: 0.2}}",
        "blocks": "2",
        "budget": "{search_trials: 2, startup_trials: 1}",
        "resources": "{cpus: 1, group: 2}",
        "measure": "{statistics: {input_jacobian: {num_samples: 32}}}",
        "contrasts": "[{arm: {merge: mul}, reference: {merge: add}}]",
    } | {key: str(value) for key, value in changes.items()}
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


def start(spec: Path, storage: Path, *options: str) -> subprocess.Popen[bytes]:
    script = "from study.cli import main; main()"
    command = [sys.executable, "-c", script, "run", str(spec), "--storage", str(storage), *options]
    with log_of(storage).open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def log_of(storage: Path) -> Path:
    return storage.parent / f"{storage.name}.log"


def finish(spec: Path, storage: Path) -> None:
    assert start(spec, storage).wait(timeout=400) == 0, log_of(storage).read_text()


def results(storage: Path) -> list[dict[str, object]]:
    """``trials.parquet`` without its timing columns."""
    table = pq.read_table(storage / "kill/tables/trials.parquet")
    return table.drop_columns(list(TIMING_COLUMNS)).to_pylist()


def num_records(storage: Path) -> int:
    return len(read_ledger(storage / "kill/ledger").replicates)
