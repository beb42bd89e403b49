"""How a run is started: Ray comes up while the driver is imported. Each takes seconds and neither waits for the other."""

import contextlib
import importlib
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from search_spaces import Spec
from study.resources.allowance import Allowance
from study.results.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a study is run, beside what its specification says.

    ``address``: of a running Ray cluster; ``None`` for this machine with ``num_cpus`` cores (all if ``None``).
    ``tracking``: an MLflow store or server; ``None`` for SQLite beside the study's folder.
    """

    address: str | None = None
    num_cpus: int | None = None
    tracking: str | None = None
    allowance: Allowance = field(default_factory=Allowance)
    retry_failed: bool = False


def start(spec: Spec, workspace: Workspace, options: RunOptions) -> bool:
    """``study.commands.run.run``, ended by SIGTERM as by Ctrl-C. Raises what that raises, and ``KeyboardInterrupt``."""
    # a spot notice, a batch system's time limit
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(1) as other, contextlib.ExitStack() as connection:
        driver = other.submit(importlib.import_module, "study.commands.run")
        # a study that has begun may be done, or refused: then it needs no Ray
        begun = workspace.ledger.exists()
        if not begun:
            from study.cluster.connection import connected

            # in this thread: Ray's processes end with the thread that has started them
            connection.enter_context(connected(options.address, options.num_cpus))
        # once more, because Ray sets a handler of its own
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        done: bool = driver.result().run(spec, workspace, options, None if begun else connection)
        return done
