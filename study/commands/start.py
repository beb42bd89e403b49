"""What a run is given, its budget, and how it starts: Ray comes up while the driver is imported, for each takes seconds."""

import contextlib
import importlib
import math
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from analysis.claims.named import misnamed
from analysis.claims.power_words import undecidable
from analysis.words.spending import device_hours, trial_seconds, unit
from search_spaces import Resources, Spec
from search_spaces.strict import quoted
from study.errors import UserError
from study.results.ledger import Contents
from study.results.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a study is run, beside what its specification says.

    ``address``: of a running Ray cluster; ``None`` for this machine with ``num_cpus`` cores (all if ``None``).
    ``tracking``: an MLflow store or server; ``None`` for SQLite beside the study's folder. ``max_hours`` of GPUs (of cores,
    where trials hold no GPU) for the whole study; ``price`` per hour, if known. ``accept_changes``: go on with other data or
    other code of plug-ins than before. ``in_process``: in this process, without Ray and MLflow. ``quiet``: print
    warnings alone; ``verbose``: a line for each training that ends. Raises ``UserError`` for both at once, and for
    ``in_process`` together with what belongs to Ray or MLflow.
    """

    address: str | None = None
    num_cpus: int | None = None
    tracking: str | None = None
    max_hours: float | None = None
    price: float | None = None
    retry_failed: bool = False
    accept_changes: bool = False
    in_process: bool = False
    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise UserError("--quiet and --verbose exclude each other")
        theirs = {"--address": self.address, "--num-cpus": self.num_cpus, "--tracking-uri": self.tracking}
        for option, value in theirs.items():
            if self.in_process and value is not None:
                raise UserError(
                    f"--in-process goes without {option} {quoted(value)}: it runs one group at a time in this process, and "
                    "leaves MLflow's view to fmm-study ui"
                )


def allowed_hours(max_hours: float | None, max_money: float | None, price: float | None) -> float | None:
    """The smaller of hours and money, in hours. Raises ``UserError`` for money without a price."""
    if max_money is None:
        return max_hours
    if not price:
        raise UserError(f"--max-money {max_money:g} needs --price, what an hour of a GPU (or core) costs")
    return min(max_money / price, math.inf if max_hours is None else max_hours)


class Purse:
    """Counts what a study spends, from its records; no new group begins once ``max_hours`` are used up."""

    def __init__(self, max_hours: float | None, resources: Resources, contents: Contents) -> None:
        self._max_hours, self._resources = max_hours, resources
        self._seconds = trial_seconds([*contents.replicates.values(), *contents.measures.values()])

    def tell(self, record: Mapping[str, Any]) -> None:
        """Take in a finished record."""
        self._seconds += trial_seconds([record])

    def is_empty(self) -> bool:
        """Whether the hours are used up."""
        return self._max_hours is not None and device_hours(self._seconds, self._resources) >= self._max_hours

    @property
    def words(self) -> str:
        """How much of the hours is spent."""
        spent = device_hours(self._seconds, self._resources)
        return f"{spent:,.3g} of {self._max_hours or 0.0:,.3g} {unit(self._resources)} hours are spent"


def refuse_undecidable(spec: Spec) -> None:
    """Raise ``UserError`` if the study has a claim that no data could decide, or a comparison without a pair of cells.

    One that has begun is judged as it is.
    """
    if found := misnamed(spec) or undecidable(spec):
        raise UserError(found)


def connected_to_ray(options: RunOptions) -> contextlib.AbstractContextManager[None]:
    """A connection to Ray, which takes seconds to import. Raises ``UserError`` where it is not installed."""
    try:
        from study.cluster.connection import connected
    except ImportError as error:
        if str(error.name).partition(".")[0] != "ray":
            raise
        raise UserError(
            f"Ray cannot be imported here ({error}): pip install 'ray[tune]', or go without: --in-process"
        ) from None
    return connected(options.address, options.num_cpus)


def start(spec: Spec, workspace: Workspace, options: RunOptions) -> bool:
    """``study.commands.run.run``, ended as by Ctrl-C by SIGTERM and, but for ``nohup``, by a terminal that is closed.

    Raises what that raises, and ``KeyboardInterrupt``.
    """
    _end_as_by_ctrl_c()
    with ThreadPoolExecutor(1) as other, contextlib.ExitStack() as connection:
        driver = other.submit(importlib.import_module, "study.commands.run")
        # a study that has begun may be done, or refused: then it needs no Ray
        begun = workspace.ledger.exists()
        if not begun:
            refuse_undecidable(spec)
        early = not begun and not options.in_process
        if early:
            # in this thread: Ray's processes end with the thread that has started them
            connection.enter_context(connected_to_ray(options))
        # once more, because Ray sets a handler of its own
        _end_as_by_ctrl_c()
        try:
            done: bool = driver.result().run(spec, workspace, options, connection if early else None)
        except KeyboardInterrupt:
            # at once: that Ray ends takes a moment
            sys.stderr.write("stopping\n")
            raise
        return done


def _end_as_by_ctrl_c() -> None:
    # a spot notice, a batch system's time limit
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
