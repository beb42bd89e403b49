"""Runs an agenda by Ray Tune: hands it groups, and writes what workers report to the ledger.

The driver alone writes the ledger. Tune's own state, checkpoints and restore are not used: after a crash the agenda is
rebuilt from the ledger.
"""

import contextlib
import json
import logging
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers.trial_scheduler import FIFOScheduler
from ray.tune.search import Searcher

from study.cluster.code import surroundings
from study.cluster.connection import slots
from study.cluster.group import Group
from study.config import Task
from study.errors import UserError
from study.planning.agenda import Agenda
from study.results.files import SCRATCH, checkpoint_folder
from study.results.ledger import Ledger
from study.schema import Record
from study.training import Progress
from study.worker.attempts import Attempts
from study.worker.group import discard_outcome

# Tune logs a traceback of every lost worker, though its group went on; ``LedgerWriter`` tells what failed
for _name in ("ray.tune.execution.tune_controller", "ray.tune.tune"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

# How long a worker runs before it reports, in seconds. Of many workers each reports less often, so that there are at most so
# many reports per second: each takes the driver some milliseconds.
REPORT_SECONDS, REPORTS_A_SECOND = 1.0, 32
# How often Tune starts a group again after its worker was lost, with nothing heard from it in between. A member that kills
# its workers fails sooner (``study.worker.attempts``), even where Tune counts one loss as two, of the call and of the actor.
MAX_FAILURES = 10
# How many workers in a row may be lost before they have begun a member, with nothing heard from any in between.
MAX_UNBEGUN = 4
# The driver asks this often whether Ray still has a host.
HOSTS_SECONDS = 10.0
# Ray counts as dead if the smallest task takes longer.
PROBE_SECONDS = 60.0

Listener = Callable[[Record | Progress], None]


class RayLost(UserError):
    """Ray itself has died, not a group of replicates."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} the same command continues; nothing is lost")


class _Stateless:
    """Tune pickles searchers and callbacks for a restore that is not used here: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class AgendaSearcher(_Stateless, Searcher):
    """Hands Tune the agenda's groups. ``None`` while every thread is busy, ``FINISHED`` when all is done."""

    def __init__(
        self,
        agenda: Agenda,
        common: dict[str, Any],
        writer: "LedgerWriter",
        enough: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(metric="done", mode="max")
        self._agenda = agenda
        self._common = common
        self._writer = writer
        self._enough = enough
        self._tell = tell
        self._groups: dict[str, list[Task]] = {}
        self._began = time.monotonic()
        self.draining = False

    def drain(self) -> None:
        """Start no more groups; the ones that were started are finished, which is told at once."""
        self.draining = True
        num, left = len(self._groups), sum(map(self._writer.num_left, self._groups.values()))
        finished = self._writer.num_finished
        about = f" (about {(time.monotonic() - self._began) / finished * left:.0f} s)" if finished else ""
        line = f"finishing {num} group{'s'[: num != 1]}{about}; Ctrl-C again stops now"
        # by a thread: this is called in the midst of whatever was being printed
        threading.Thread(target=self._tell, args=(line,), daemon=True).start()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next group, as a Tune configuration."""
        self.draining = self.draining or self._enough()
        tasks = None if self.draining else self._agenda.next_group()
        if tasks is None:
            return Searcher.FINISHED if self.draining or self._agenda.done else None
        self._groups[trial_id] = tasks
        return {"tasks": [json.dumps(task.to_plain()) for task in tasks], **self._common}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A group has ended, or Tune has given it up: then what is unfinished of it is ahead again."""
        tasks = self._groups.pop(trial_id, None)
        if tasks is not None:
            if error:
                self._writer.lost()
            self._writer.ended(tasks)
            self._agenda.group_ended(tasks)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""


class LeaveStarting(FIFOScheduler):
    """First in, first out, but a group whose worker is starting is left to that worker.

    Tune's own order gives a worker that falls free the oldest group that is not at work, even if a worker is just starting
    for that group, and then stops the starting one. Where groups are shorter than a start (a new host that reads torch from a
    cold disk), no worker there would ever come up.
    """

    def __init__(self) -> None:
        super().__init__()
        # by age; those that have ended are removed, so that a long study is no slower
        self._groups: dict[str, Trial] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A group has come."""
        self._groups[trial.trial_id] = trial

    def on_trial_remove(self, tune_controller: Any, trial: Trial, *_: Any) -> None:
        """A group has ended, was given up by Tune or was taken back."""
        self._groups.pop(trial.trial_id, None)

    on_trial_complete = on_trial_error = on_trial_remove

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The oldest group without a worker; if another release of Tune names its parts differently, Tune's own choice."""
        try:
            placeless = set(tune_controller._actor_manager.pending_actors)
            actors = tune_controller._trial_to_actor
        except AttributeError:
            waiting: Trial | None = super().choose_trial_to_run(tune_controller)
            return waiting
        for trial in self._groups.values():
            if trial.status == Trial.PENDING and (trial not in actors or actors[trial] in placeless):
                return trial
        return None


class LedgerWriter(_Stateless, tune.Callback):
    """Appends what workers report to the ledger, and tells a listener."""

    def __init__(self, ledger: Ledger, storage: Path, listen: Listener, attempts: Attempts) -> None:
        self._ledger, self._storage, self._listen, self._attempts = ledger, storage, listen, attempts
        self._asked = time.monotonic()
        # what was raised, which Tune wraps in an error of its own
        self.fault: UserError | None = None
        self._num_unbegun = 0
        # members that have ended in this run
        self.num_finished = 0
        self._taken: set[str] = set()

    def _fail(self, fault: UserError) -> NoReturn:
        self.fault = fault
        raise fault

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Tune would wait for ever for a worker on a Ray that has no host left. Raises ``RayLost`` then."""
        if time.monotonic() - self._asked > HOSTS_SECONDS:
            self._asked = time.monotonic()
            if not any(node["Alive"] for node in ray.nodes()):
                self._fail(RayLost("Ray has lost its last host:"))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Take in the records of one report. Raises ``UserError`` if the worker cannot write to the storage."""
        if fault := result.pop("fault", ""):
            self._fail(UserError(fault))
        new = self.append(json.loads(result.pop("records", "[]")))
        progress = json.loads(result.pop("progress", "[]"))
        if progress:
            self._listen(Progress(*progress))
        if new or progress:
            # only losses without an epoch between them count: a group goes on from its checkpoint in the next worker
            trial.run_metadata.num_failures = self._num_unbegun = 0

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A worker was lost, and the group is started again. Raises ``RayLost`` when none of many has begun its work."""
        keys = [Task.from_plain(json.loads(task)).config.trial_key for task in trial.config["tasks"]]
        if any(self._attempts.losses(checkpoint_folder(self._storage, key)) for key in keys):
            return
        self._num_unbegun += 1
        if self._num_unbegun > MAX_UNBEGUN:
            self._fail(
                RayLost(f"workers are lost before they begin ({_cause(Path(trial.error_file))}); when that is mended")
            )

    def lost(self) -> None:
        """Tune has given a group up. Raises ``RayLost`` when no other worker can be had: then Ray has failed."""
        try:
            ray.get(ray.remote(num_cpus=0)(lambda: None).remote(), timeout=PROBE_SECONDS)
        except Exception as error:
            self.fault = RayLost(f"Ray starts no more workers ({type(error).__name__}):")
            raise self.fault from error

    def append(self, records: Sequence[Record]) -> bool:
        """Write records through to disk, leaving out those held already; whether there was a new one."""
        try:
            new = [record for record in records if self._ledger.append(record)]
        except UserError as error:
            self._fail(error)
        for record in new:
            self._listen(record)
        self._taken |= {record["trial_key"] for record in records}
        self.num_finished += len({record["trial_key"] for record in new})
        return bool(new)

    def num_left(self, tasks: Sequence[Task]) -> int:
        """How many members of a group have not ended."""
        return len({task.config.trial_key for task in tasks} - self._taken)

    def ended(self, tasks: Sequence[Task]) -> None:
        """Remove hand-over files of a group that has ended: a worker that goes on with a lost one's group needs them."""
        for key in self._taken & {task.config.trial_key for task in tasks}:
            self._taken.discard(key)
            discard_outcome(self._storage, key)


@contextlib.contextmanager
def draining(drain: Callable[[], None]) -> Iterator[None]:
    """Call ``drain`` at the first SIGINT, SIGTERM or SIGHUP: running groups finish and no more are started.

    The second SIGINT or SIGTERM meets the handlers that were there before: it stops at once, and nothing is lost. A terminal
    that is closed sends several SIGHUP, which all ask for the same; one that is ignored (``nohup``) stays so. Outside the
    main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # enter with Ray started: this replaces Ray's own handler of SIGTERM, which aborts
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    asked = False

    def restore(numbers: Iterable[signal.Signals]) -> None:
        for number in numbers:
            signal.signal(number, before[number])

    def stop(number: int, _: object) -> None:
        nonlocal asked
        if not asked:
            drain()
        asked = True
        if number != signal.SIGHUP:
            restore(before.keys() - {signal.SIGHUP})

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore(before)


def run_agenda(
    agenda: Agenda,
    ledger: Ledger,
    storage: Path,
    listen: Listener,
    *,
    connection: contextlib.AbstractContextManager[Any],
    enough: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda line: None,
) -> bool:
    """Run groups until the agenda is done; ``False`` when Ctrl-C or ``enough`` ended it early, running groups finished.

    ``connection``: to Ray, for the time of the run (``study.cluster.connection.connected``). ``tell`` prints a line. Raises
    ``UserError`` if the cluster cannot hold one group or runs other code, ``RayLost`` if Ray dies.
    """
    resources = agenda.plan.spec.resources
    driver = uuid.uuid4().hex
    common: dict[str, Any] = {"storage": str(storage.resolve()), "threads": resources.threads, "gpus": resources.gpus}
    common |= {"surroundings": surroundings(agenda.plan.spec.plugins), "driver": driver}
    writer = LedgerWriter(ledger, storage, listen, Attempts(driver))
    searcher = AgendaSearcher(agenda, common, writer, enough, tell)
    storage.mkdir(parents=True, exist_ok=True)
    with (
        connection,
        # Tune's own files, on the study's storage so that all hosts see them
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=storage.resolve(), ignore_cleanup_errors=True) as scratch,
        draining(searcher.drain),
    ):
        # as many groups wait as can run, so that an actor that falls free has the next one at once
        num_slots = slots(resources.cpus, resources.gpus)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(num_slots)
        common["report_seconds"] = max(REPORT_SECONDS, num_slots / REPORTS_A_SECOND)
        tuner = tune.Tuner(
            tune.with_resources(Group, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher, scheduler=LeaveStarting(), num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                callbacks=[writer],
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except Exception:  # all of it goes up: as it is, or as what the writer raised before Tune wrapped it
            if writer.fault:
                raise writer.fault from writer.fault.__cause__
            raise
    return agenda.done


def _cause(error_file: Path) -> str:
    """The last failure that Tune has written of a trial: a worker's own error ends with it, a death begins with it."""
    told = error_file.read_text().rpartition("Failure # ")[2].strip().splitlines()[1:] if error_file.exists() else []
    raised = any("Traceback" in line or "an error raised in" in line for line in told)
    return told[-1 if raised else 0] if told else "no reason is known"
