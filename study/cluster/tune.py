"""Runs a study by Ray Tune: hands it a feed's groups, and gives what workers report back.

Tune's own state, checkpoints and restore are not used: after a crash the agenda is rebuilt from the ledger.
"""

import contextlib
import json
import logging
import os
import tempfile
import time
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
from study.driver.feed import Feed
from study.driver.notice import draining
from study.errors import UserError
from study.results.files import SCRATCH, checkpoint_folder
from study.training import Progress
from study.worker.attempts import Attempts

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


class RayLost(UserError):
    """Ray itself has died, not a group of replicates."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} the same command continues; nothing is lost")


class _Stateless:
    """Tune pickles searchers and callbacks for a restore that is not used here: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class FeedSearcher(_Stateless, Searcher):
    """Hands Tune the groups of a feed. ``None`` while none is ready, ``FINISHED`` when no more will come."""

    def __init__(self, feed: Feed, common: dict[str, Any], writer: "LedgerWriter") -> None:
        super().__init__(metric="done", mode="max")
        self._feed, self._common, self._writer = feed, common, writer
        self._groups: dict[str, list[Task]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next group, as a Tune configuration."""
        tasks = self._feed.next_group()
        if tasks is None:
            return Searcher.FINISHED if self._feed.over else None
        self._groups[trial_id] = tasks
        return {"tasks": [json.dumps(task.to_plain()) for task in tasks], **self._common}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A group has ended, or Tune has given it up."""
        tasks = self._groups.pop(trial_id, None)
        if tasks is not None:
            if error:
                self._writer.lost()
            self._feed.ended(tasks)

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
    """Gives what workers report to the feed, and watches over Ray."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self._attempts = feed, Attempts(feed.driver)
        self._asked = time.monotonic()
        # what was raised, which Tune wraps in an error of its own
        self.fault: UserError | None = None
        self._num_unbegun = 0

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
        try:
            new = self._feed.append(json.loads(result.pop("records", "[]")))
        except UserError as error:
            self._fail(error)
        progress = json.loads(result.pop("progress", "[]"))
        if progress:
            self._feed.listen(Progress(*progress))
        if new or progress:
            # only losses without an epoch between them count: a group goes on from its checkpoint in the next worker
            trial.run_metadata.num_failures = self._num_unbegun = 0

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A worker was lost, and the group is started again. Raises ``RayLost`` when none of many has begun its work."""
        keys = [Task.from_plain(json.loads(task)).config.trial_key for task in trial.config["tasks"]]
        if any(self._attempts.losses(checkpoint_folder(self._feed.storage, key)) for key in keys):
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


def run_on_ray(feed: Feed, *, connection: contextlib.AbstractContextManager[Any]) -> None:
    """Run what ``feed`` hands out.

    ``connection``: to Ray, for the time of the run (``study.cluster.connection.connected``). Raises ``UserError`` if the
    cluster cannot hold one group or runs other code, ``RayLost`` if Ray dies.
    """
    spec = feed.agenda.plan.spec
    resources, storage = spec.resources, feed.storage.resolve()
    common: dict[str, Any] = {"storage": str(storage), "threads": resources.threads, "gpus": resources.gpus}
    common |= {"surroundings": surroundings(feed.agenda.plan.code), "driver": feed.driver}
    writer = LedgerWriter(feed)
    storage.mkdir(parents=True, exist_ok=True)
    with (
        connection,
        # Tune's own files, on the study's storage so that all hosts see them
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=storage, ignore_cleanup_errors=True) as scratch,
        draining(feed.drain),
    ):
        # as many groups wait as can run, so that an actor that falls free has the next one at once
        num_slots = slots(resources.cpus, resources.gpus)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(num_slots)
        common["report_seconds"] = max(REPORT_SECONDS, num_slots / REPORTS_A_SECOND)
        tuner = tune.Tuner(
            tune.with_resources(Group, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=FeedSearcher(feed, common, writer),
                scheduler=LeaveStarting(),
                num_samples=-1,
                reuse_actors=True,
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


def _cause(error_file: Path) -> str:
    """The last failure that Tune has written of a trial: a worker's own error ends with it, a death begins with it."""
    told = error_file.read_text().rpartition("Failure # ")[2].strip().splitlines()[1:] if error_file.exists() else []
    raised = any("Traceback" in line or "an error raised in" in line for line in told)
    return told[-1 if raised else 0] if told else "no reason is known"
