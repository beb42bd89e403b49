"""Driving the real command line in tests that kill things: start it, wait for it, read what it left."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from study.results.ledger import read_ledger
from study.schema import TIMING_COLUMNS

# trainings of made-up images that take a tenth of a second
MADE_UP = "{dataset: fake, width: 4, epochs: 2, batch_size: 16}"
FAKE: dict[str, object] = {
    "factors": "{merge: [add, mul], attention: [none], attention_form: [none], depth: [8]}",
    "fixed": MADE_UP,
}
# a driver sees sooner that its Ray is gone
PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
PROGRAM = "from study.cli import main; main()"
UNDRAWN = f"from analysis.report import page; page.build_report = lambda *_: None; {PROGRAM}"


def write_spec(path: Path, **changes: object) -> Path:
    """A small study of real trainings, a second each; ``changes`` are lines put in place of its own."""
    lines = {
        "name": "kill",
        "seed": "7",
        "factors": "{merge: [add, sig_bn, mul], attention: [none], attention_form: [none], depth: [8]}",
        "fixed": "{dataset: digits, width: 8, epochs: 12, batch_size: 128}",
        "nuisance": "{lr: {low: 0.03, high: 1.0, log: true, default: 0.2}}",
        "blocks": "2",
        "budget": "{search_trials: 2, startup_trials: 1}",
        "resources": "{cpus: 1, group: 2}",
        "measure": "{statistics: {input_jacobian: {num_samples: 32}}}",
        "contrasts": "[{arm: {merge: mul}, reference: {merge: add}}]",
    } | {key: str(value) for key, value in changes.items()}
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


def start(spec: Path, storage: Path, *options: str, report: bool = False, before: str = "") -> subprocess.Popen[bytes]:
    """``fmm-study run SPEC --storage STORAGE``, without its figures and report, which take seconds, if not ``report``.

    ``before``: Python that runs first.
    """
    script = f"{before}\n{PROGRAM if report else UNDRAWN}"
    command = [sys.executable, "-c", script, "run", str(spec), "--storage", str(storage), *options]
    env = os.environ | PATIENCE
    with log_of(storage).open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=env)


def log_of(storage: Path) -> Path:
    return storage.parent / f"{storage.name}.log"


def finish(spec: Path, storage: Path, *options: str, report: bool = False) -> None:
    assert start(spec, storage, *options, report=report).wait(timeout=400) == 0, log_of(storage).read_text()


def results(storage: Path, blocks: int | None = None) -> list[dict[str, object]]:
    """``trials.parquet`` without its timing columns, of the first ``blocks`` alone if that is given."""
    table = pq.read_table(storage / "kill/tables/trials.parquet")
    rows: list[dict[str, object]] = table.drop_columns(list(TIMING_COLUMNS)).to_pylist()
    return [row for row in rows if blocks is None or row["search_block"] < blocks]


def num_records(storage: Path) -> int:
    return len(read_ledger(storage / "kill/ledger").replicates)
