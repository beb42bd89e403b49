"""Ray Tune schedules groups of replicates.

Workers report records through Tune's results; the driver alone writes the ledger. Tune's own state, checkpoints and
restore are not used: after a crash the agenda is rebuilt from the ledger.
"""

import contextlib
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# before Tune is imported: no loggers of its own, no change of directory, no log of every failed trial
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
from ray import tune
from ray.tune.search import Searcher

from study.cluster.connection import slots
from study.cluster.interrupt import draining
from study.cluster.scheduler import LeaveStarting
from study.errors import StorageError, UserError
from study.plugins import load_plugins
from study.results.files import checkpoint_folder
from study.results.ledger import Ledger
from study.schema import Record
from study.task import Task
from study.training.loop import Progress
from study.worker.attempts import Attempts
from study.worker.group import discard_outcome, run_group

if TYPE_CHECKING:
    # workers import this module: they have no use for Optuna and scipy, which take a second
    from study.planning.agenda import Agenda

# of a lost worker Tune logs a traceback, and at the end its name, though its group went on; ``LedgerWriter`` tells what failed
for _name in ("ray.tune.execution.tune_controller", "ray.tune.tune"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

# How long a worker runs before it reports, in seconds: progress stays live and Tune's cost a report stays small. More workers
# than make so many reports a second report less often, because each report takes the driver some milliseconds.
REPORT_SECONDS, REPORTS_A_SECOND = 1.0, 32
# How often Tune starts a group again after its worker was lost, with nothing heard from it in between. A member that kills
# its workers fails sooner (``study.worker.attempts``), also where Tune counts one loss as two: of the call and of the actor.
MAX_FAILURES = 10
# How many workers in a row may be lost before they have begun a member, with nothing heard from any in between.
MAX_UNBEGUN = 4
# How often the driver looks whether Ray still has a host.
LOOK_SECONDS = 10.0
# How long Ray may take over the smallest task before it counts as dead.
PROBE_SECONDS = 60.0

Listener = Callable[[Record | Progress], None]


class RayLost(UserError):
    """Ray itself has died, not a group of replicates."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: the same command continues; nothing is lost")


class _Stateless:
    """Tune pickles searchers and callbacks for a restore that is not used here: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Group(tune.Trainable):
    """A Tune trial: one group of replicates, in an actor that is reused for the next group."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start on a group."""
        load_plugins(config["plugins"], config["folder"])
        tasks = [Task.from_plain(json.loads(task)) for task in config["tasks"]]
        # the variable is for logical GPUs, by which placement is tried on a machine that has none
        device = os.environ.get("FMM_STUDY_DEVICE") or ("cuda" if config["gpus"] else "cpu")
        given = {name: config[name] for name in ("threads", "plugins", "driver")}
        self._report_seconds = config["report_seconds"]
        self._events = run_group(tasks, Path(config["storage"]), device=device, **given)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start on the next group in the same process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run on for a moment; report the records finished in it."""
        records: list[Record] = []
        progress: list[int | float] = []
        until = time.monotonic() + self._report_seconds
        done = False
        while time.monotonic() < until:
            try:
                event = next(self._events, None)
            except StorageError as error:
                # no fault of the group, so it is told instead of raised: Tune would start the group again
                return {"fault": str(error), "done": True}
            if event is None:
                done = True
                break
            if isinstance(event, Progress):
                progress = [event.epoch, event.epochs, event.val_loss]
            else:
                records += event
        # as text, so that Tune neither flattens nor inspects it
        return {"records": json.dumps(records), "progress": json.dumps(progress), "done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: replicates write their own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: replicates find their own checkpoints."""


class AgendaSearcher(_Stateless, Searcher):
    """Hands Tune the agenda's groups. ``None`` while every thread is busy, ``FINISHED`` when all is done."""

    def __init__(
        self, agenda: "Agenda", common: dict[str, Any], writer: "LedgerWriter", enough: Callable[[], bool]
    ) -> None:
        super().__init__(metric="done", mode="max")
        self._agenda = agenda
        self._common = common
        self._writer = writer
        self._enough = enough
        self._groups: dict[str, list[Task]] = {}
        self.draining = False

    def drain(self) -> None:
        """Start no more groups."""
        self.draining = True

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


class LedgerWriter(_Stateless, tune.Callback):
    """Appends what workers report to the ledger, and tells a listener."""

    def __init__(self, ledger: Ledger, storage: Path, listen: Listener, attempts: Attempts) -> None:
        self._ledger, self._storage, self._listen, self._attempts = ledger, storage, listen, attempts
        self._looked = time.monotonic()
        # kept, because Tune wraps what a callback raises in an error of its own
        self.fault: UserError | None = None
        self._num_unbegun = 0
        self._taken: set[str] = set()

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Tune would wait for ever for a worker on a Ray that has no host left. Raises ``RayLost`` then."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            if not any(node["Alive"] for node in ray.nodes()):
                self.fault = RayLost("Ray has lost its last host")
                raise self.fault

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Take in the records of one report. Raises ``UserError`` where the worker cannot write to the storage."""
        if fault := result.pop("fault", ""):
            self.fault = UserError(fault)
            raise self.fault
        new = self.append(json.loads(result.pop("records", "[]")))
        progress = json.loads(result.pop("progress", "[]"))
        if progress:
            self._listen(Progress(*progress))
        if new or progress:
            # only losses in a row, without an epoch between them, count: a trial that moves from dying worker to dying
            # worker goes on from its checkpoint
            trial.run_metadata.num_failures = self._num_unbegun = 0

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A worker was lost, and the group is started again. Raises ``RayLost`` when none of many has begun its work."""
        keys = [Task.from_plain(json.loads(task)).config.trial_key for task in trial.config["tasks"]]
        if any(self._attempts.losses(checkpoint_folder(self._storage, key)) for key in keys):
            return
        self._num_unbegun += 1
        if self._num_unbegun > MAX_UNBEGUN:
            self.fault = RayLost(f"workers are lost before they begin ({_cause(Path(trial.error_file))})")
            raise self.fault

    def lost(self) -> None:
        """Tune has given a group up. Raises ``RayLost`` when no other worker can be had: then Ray has failed."""
        try:
            ray.get(ray.remote(num_cpus=0)(lambda: None).remote(), timeout=PROBE_SECONDS)
        except Exception as error:
            self.fault = RayLost(f"Ray starts no more workers ({type(error).__name__})")
            raise self.fault from error

    def append(self, records: Sequence[Record]) -> bool:
        """Write records through to disk, leaving out those held already; whether there was a new one."""
        try:
            new = [record for record in records if self._ledger.append(record)]
        except StorageError as error:
            self.fault = error
            raise
        for record in new:
            self._listen(record)
        self._taken |= {record["trial_key"] for record in records}
        return bool(new)

    def ended(self, tasks: Sequence[Task]) -> None:
        """A group has ended. Until now its members' hand-over files stood, for a worker that goes on with a lost one's group
        takes from them what is finished, where it would train it again."""
        for key in self._taken & {task.config.trial_key for task in tasks}:
            self._taken.discard(key)
            discard_outcome(self._storage, key)


def run_agenda(
    agenda: "Agenda",
    ledger: Ledger,
    storage: Path,
    listen: Listener,
    *,
    connection: contextlib.AbstractContextManager[Any],
    enough: Callable[[], bool] = lambda: False,
) -> bool:
    """Run groups until the agenda is done; ``False`` when Ctrl-C or ``enough`` ended it early, running groups finished.

    ``connection``: to Ray, for the time of a run (``study.cluster.connection.connected``). Raises ``UserError`` when
    the cluster cannot
    hold one group, ``RayLost`` when it dies.
    """
    resources = agenda.plan.spec.resources
    common = {"storage": str(storage.resolve()), "threads": resources.threads, "gpus": resources.gpus}
    plugins = agenda.plan.spec.plugins
    common |= {"plugins": plugins, "folder": str(Path.cwd()) if plugins else "", "driver": (driver := uuid.uuid4().hex)}
    writer = LedgerWriter(ledger, storage, listen, Attempts(driver))
    searcher = AgendaSearcher(agenda, common, writer, enough)
    with connection, _scratch(storage) as scratch, draining(searcher.drain):
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
                storage_path=str(scratch),
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


@contextlib.contextmanager
def _scratch(storage: Path) -> Iterator[Path]:
    """A folder for Tune's own files, on the study's storage so that all hosts see it; removed afterwards."""
    storage.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tune-", dir=storage.resolve(), ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def _cause(error_file: Path) -> str:
    """The last failure that Tune has written of a trial: a worker's own error ends with it, a death begins with it."""
    told = error_file.read_text().rpartition("Failure # ")[2].strip().splitlines()[1:] if error_file.exists() else []
    raised = any("Traceback" in line or "an error raised in" in line for line in told)
    return told[-1 if raised else 0] if told else "no reason is known"
