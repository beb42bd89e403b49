"""The whole driver in one process (``run --in-process``), without Ray: quick to start and to kill.

As a program (``serial.py SPEC STORAGE NUM_KILLS SEED``) it starts the driver again and again, each in a process of its own,
kills it with SIGKILL at random moments spread over the study, lets the last one finish, and prints what happened as JSON.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from search_spaces import load_spec
from study.commands import run as driver
from study.commands.executors import InProcess
from study.commands.start import RunOptions
from study.planning.plan import make_plan
from study.results.ledger import read_ledger
from study.results.workspace import opened
from study.tracking.view import MlflowView


def run_serially(spec: Path, storage: Path, *, report: bool = True, view: bool = True, **options: Any) -> bool:
    """``fmm-study run SPEC --storage STORAGE --in-process``, without figures and report if not ``report``.

    ``view``: with MLflow's beside it, as a run on Ray has it. Raises what it raises.
    """
    checked, workspace = opened(str(spec), [], storage)
    with contextlib.ExitStack() as stack:
        if not report:
            stack.enter_context(mock.patch("analysis.report.page.build_report"))
        if view:
            stack.enter_context(mock.patch.object(InProcess, "view", staticmethod(MlflowView)))
        return driver.run(checked, workspace, RunOptions(in_process=True, **options))


def begin(spec: Path, storage: Path) -> int:
    """The driver in a new process; its number. What it prints is thrown away, tracebacks are not."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            run_serially(spec, storage)
        except BaseException:  # noqa: BLE001  a child must not come back
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


def kill_and_go_on(spec: Path, storage: Path, num_kills: int, seed: int) -> dict[str, list[float]]:
    """``held``: records at each kill; ``recovery``: seconds from a kill to the next record, where no other kill came first."""
    generator, checked = random.Random(seed), load_spec(str(spec))
    planned, ledger = make_plan(checked).num_trainings, storage / checked.name / "ledger"
    told: dict[str, list[float]] = {"held": [], "recovery": []}
    struck: float | None = None
    for i in range(num_kills):
        child = begin(spec, storage)
        # strikes are spread over the study: the i-th comes somewhere in its i-th part
        after, wait = planned * (i + generator.random()) / (num_kills + 1), generator.random() / 2
        until: float | None = None
        while until is None or time.monotonic() < until:
            held = len(read_ledger(ledger).replicates)
            if struck and held > told["held"][-1]:
                told["recovery"].append(time.monotonic() - struck)
                struck = None
            if until is None and held >= after:
                until = time.monotonic() + wait
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the driver has ended by itself"
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        struck = time.monotonic()
        told["held"].append(len(read_ledger(ledger).replicates))
    assert os.waitstatus_to_exitcode(os.waitpid(begin(spec, storage), 0)[1]) == 0
    return told


if __name__ == "__main__":
    import imported  # noqa: F401  once, before there are children

    found = kill_and_go_on(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps(found))
