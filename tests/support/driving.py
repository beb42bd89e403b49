"""Driving the real command line in tests that kill things: start it, wait for it, read what it left."""

import atexit
import multiprocessing
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq

from study.results.ledger import read_ledger
from study.schema import TIMING_COLUMNS

# a driver sees sooner that its Ray is gone
PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
# trainings of made-up images that take a tenth of a second
MADE_UP = "{dataset: fake, width: 4, epochs: 2, batch_size: 16}"
FAKE: dict[str, object] = {
    "factors": "{merge: [add, mul], attention: [none], attention_form: [none], depth: [8]}",
    "fixed": MADE_UP,
}
PROGRAM = "from study.cli import main; main()"
UNDRAWN = f"from analysis.report import page; page.build_report = lambda *_: None; {PROGRAM}"


def write_spec(path: Path, **changes: object) -> Path:
    """A small study of real trainings, half a second each; ``changes`` are lines put in place of its own."""
    lines = {
        "name": "kill",
        "seed": "7",
        "factors": "{merge: [add, sig_bn, mul], attention: [none], attention_form: [none], depth: [8]}",
        "fixed": "{dataset: digits, width: 4, epochs: 8, batch_size: 128}",
        "nuisance": "{lr: {low: 0.03, high: 1.0, log: true, default: 0.2}}",
        "blocks": "2",
        "budget": "{search_trials: 2, startup_trials: 1}",
        "resources": "{cpus: 1, group: 2}",
        "measure": "{statistics: {input_jacobian: {num_samples: 32}}}",
        "contrasts": "[{arm: {merge: mul}, reference: {merge: add}}]",
    } | {key: str(value) for key, value in changes.items()}
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


class Driver:
    """A process of its own session, as ``subprocess.Popen`` would start it, but at once.

    It is a fork of one that has imported torch, Ray and all else, which takes seconds.
    """

    def __init__(self, script: str, arguments: list[str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["imported"])
        self._process = context.Process(target=_drive, args=(script, arguments, log, dict(os.environ)))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"the driver {self.pid} still runs after {timeout} s")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _drive(script: str, arguments: list[str], log: Path, environ: dict[str, str]) -> None:
    os.setsid()
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environ | PATIENCE)
    sys.argv = ["-c", *arguments]
    try:
        exec(script, {"__name__": "__main__"})
    finally:
        # a fork ends without them
        atexit._run_exitfuncs()


def start(spec: Path, storage: Path, *options: str, report: bool = False, before: str = "") -> Driver:
    """``fmm-study run SPEC --storage STORAGE``, without its figures and report, which take seconds, if not ``report``.

    ``before``: Python that runs first.
    """
    script = f"{before}\n{PROGRAM if report else UNDRAWN}"
    return Driver(script, ["run", str(spec), "--storage", str(storage), *options], log_of(storage))


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
