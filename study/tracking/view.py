"""The MLflow view of a study: a thread that replays the ledger beside a run, and a replay without one.

The ledger is the truth: whatever happens here, the study goes on. A store that does not answer is tried again with growing
pauses, from what it then holds, so that nothing is missing afterwards.
"""

import contextlib
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from search_spaces import Spec, write_yaml
from study.errors import UserError
from study.results.files import FIGURES_FOLDER, MEASUREMENTS, PROVENANCE, REPORT, TABLES_FOLDER
from study.results.ledger import Contents
from study.results.sessions import read_sessions, session_tags
from study.results.workspace import read_registration
from study.schema import Record
from study.tracking.pages import NOTE, Shown, experiment_tags
from study.tracking.runs import SUMMARY_PHASE, Wanted
from study.tracking.sqlite import ARTIFACTS
from study.tracking.store import Store, find_study, masked
from study.tracking.summaries import Summary

# MLflow takes seconds of a core to import and to make a database, and a study's start needs the core: the view waits for the
# first record, or for so long.
BEGIN_SECONDS = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
FINISH_SECONDS = 120.0
_CLOSING_SECONDS = 5.0

Warn = Callable[[str], None]
Progress = Callable[[int, int], None]


def replay(
    spec: Spec,
    root: Path,
    contents: Contents,
    uri: str,
    summary: Summary,
    *,
    done: bool,
    progress: Progress = lambda *_: None,
) -> Shown:
    """Write everything that the ledger holds, without a run. Raises ``UserError`` if the store cannot be written.

    Not for use while a driver is at work on the study: its own view writes the same runs. Arguments as in ``MlflowView``.
    ``progress`` is told how many replicates' runs are up to date, and of how many.
    """
    replayed = _Replay(spec, root, contents, uri, progress)
    with as_user_error(uri):
        return replayed.shown(replayed.finish(summary, _status(done), threading.Event()))


def find_view(spec: Spec, contents: Contents, uri: str) -> Shown | None:
    """Where a study is in a store, changing nothing, also while a driver is at work; ``None`` where it holds nothing of it.

    Reads few runs, however many there are. Raises ``UserError``.
    """
    wanted = Wanted(spec, contents)
    block = wanted.block()
    number = contents.replicates[block[0]]["block"] if block else 0
    filters = f"tags.phase = 'confirm' and tags.block = '{number}'", f"tags.phase = '{SUMMARY_PHASE}'"
    with as_user_error(uri):
        found = find_study(uri, spec.name, filters)
    if found is None or not found.parents:
        return None
    parent, pages = found.parents[0], experiment_tags(spec).items()
    runs = {run.tags.get("trial_key"): run.run_id for run in found.runs}
    has_summaries = any(run.tags.get("phase") == SUMMARY_PHASE for run in found.runs)
    return Shown(
        experiment_id=found.experiment_id,
        block=[runs[key] for key in block if key in runs],
        has_summaries=has_summaries,
        is_whole=parent.status != "RUNNING"
        and (has_summaries or not block)
        and wanted.counts().items() <= parent.metrics.items()
        and all(found.tags.get(name) == value for name, value in pages if name != NOTE),
    )


@contextlib.contextmanager
def as_user_error(uri: str) -> Iterator[None]:
    """Turn whatever a store raises into a ``UserError`` of one line that names the store."""
    try:
        yield
    # MLflow lets through what its drivers raise (requests, SQLAlchemy, protobuf): there is no narrower class
    except Exception as error:
        raise UserError(f"MLflow at {masked(uri)} does not answer as it should: {_reason(error)}") from error


class MlflowView:
    """Follows one run of a study; a context manager that never raises and never blocks the driver.

    ``root`` is the study's folder; ``uri`` comes from ``study.tracking.store.tracking_uri``. ``warn``, called from another
    thread, gets one line when the store cannot be written, one when it can again, one when the view was left incomplete.
    ``contents`` is copied; later records come by ``tell``.
    """

    # of a view that is not whole
    behind = "incomplete"

    def __init__(self, spec: Spec, root: Path, contents: Contents, uri: str, warn: Warn) -> None:
        self._replay = _Replay(spec, root, contents, uri)
        self._uri, self._warn = masked(uri), warn
        self._records: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._ending: tuple[Summary, str] | None = None
        self._hurry, self._stop, self._whole = threading.Event(), threading.Event(), threading.Event()
        # a daemon: a server that hangs must not keep the process alive
        self._thread = threading.Thread(target=self._work, name="mlflow-view", daemon=True)

    def __enter__(self) -> "MlflowView":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._ending is None:
            self.finish(Summary(), done=False, timeout=_CLOSING_SECONDS)

    def tell(self, record: Record) -> None:
        """Take in a record that the ledger has just taken."""
        self._records.put(record)

    def finish(self, summary: Summary, *, done: bool, timeout: float = FINISH_SECONDS) -> bool:
        """Write the rest, then cells, tables, figures and report; whether the view is whole. Waits about ``timeout`` seconds.

        ``done``: whether the study is; if not, its run ends as KILLED.
        """
        self._ending = summary, _status(done)
        self._hurry.set()
        self._records.put(None)
        whole = self._whole.wait(timeout)
        self._stop.set()
        self._thread.join(_CLOSING_SECONDS)
        if not whole:
            self._warn(
                f"the MLflow view at {self._uri} is incomplete; the ledger holds everything, and the same command or "
                "'fmm-study ui' writes the rest"
            )
        return whole

    def _work(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._take(self._records.get(timeout=BEGIN_SECONDS))
        pause = 0.0
        while not self._stop.is_set():
            # read before the queue is emptied: all that was told before the end is in it
            ending = self._ending
            while not self._records.empty():
                self._take(self._records.get())
            try:
                if ending:
                    self._replay.finish(*ending, self._stop)
                else:
                    self._replay.write("RUNNING", self._stop)
            # nothing that goes wrong with a view (network, database, full disk, a fault in MLflow) may end the study
            except Exception as error:  # noqa: BLE001
                if not pause:
                    self._warn(f"MLflow at {self._uri} cannot be written: {_reason(error)}; the study goes on")
                pause = min(2 * pause, LONGEST_PAUSE) or FIRST_PAUSE
                if ending:
                    self._stop.wait(FIRST_PAUSE)
                else:
                    self._hurry.wait(pause)
                continue
            if pause:
                self._warn(f"MLflow at {self._uri} can be written again")
                pause = 0.0
            if ending:
                if not self._stop.is_set():
                    self._whole.set()
                    return
            else:
                self._take(self._records.get())
        self._replay.close()

    def _take(self, record: Record | None) -> None:
        if record is not None:
            self._replay.add(record)


class LaterView:
    """Stands where ``MlflowView`` would: nothing is written, and MLflow is not imported. A later replay writes all."""

    behind = "not written yet"

    def __enter__(self) -> "LaterView":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass

    def tell(self, record: Record) -> None:
        """Leave it to the ledger."""

    def finish(self, summary: Summary, *, done: bool) -> bool:
        """``False``: the view is not whole."""
        return False


class _Replay:
    """Brings a tracking store up to a ledger. After an exception the next call begins anew from what the store holds."""

    def __init__(
        self, spec: Spec, root: Path, contents: Contents, uri: str, progress: Progress = lambda *_: None
    ) -> None:
        self._spec, self._root, self._uri, self._progress = spec, root, uri, progress
        self._wanted = Wanted(spec, contents)
        self._store: Store | None = None
        self._pending: dict[str, None] = {}

    def add(self, record: Record) -> None:
        """Take in a record; it is written by the next ``write``."""
        self._pending |= dict.fromkeys(self._wanted.add(record))

    def write(self, status: str, stop: threading.Event) -> Store:
        """Write what is lacking, oldest first, until ``stop``; the parent run gets ``status`` when the store is opened."""
        store, self._store = self._store, None
        if store is None:
            store = self.open()
            self._write_study(store, {}, status)
            self._pending = dict.fromkeys(self._wanted.trial_keys())
        keys = list(self._pending)
        for number, key in enumerate(keys, 1):
            if stop.is_set():
                break
            store.write(self._wanted.replicate(key))
            del self._pending[key]
            self._progress(number, len(keys))
        self._store = store
        return store

    def finish(self, summary: Summary, status: str, stop: threading.Event) -> Store:
        """Write what is lacking, then the files, the summary and last the parent run's status."""
        store, self._store = self.write(status if self._store is None else "RUNNING", stop), None
        if not stop.is_set():
            spec = write_yaml(self._spec.model_dump(mode="json"), allow_unicode=False)
            files = [self._root / name for name in (PROVENANCE, TABLES_FOLDER, FIGURES_FOLDER, REPORT, MEASUREMENTS)]
            store.write_files({"spec.yaml": spec}, files)
            for cell in summary.cells:
                store.write(cell)
            if summary.description:
                store.describe(summary.description)
            self._write_study(store, summary.headlines, status)
        self._store = store
        return store

    def close(self) -> None:
        """Leave the parent run KILLED, if the store still answers."""
        if self._store is not None:
            # whatever a store raises: its run stays RUNNING there, until the next replay of the ledger ends it
            with contextlib.suppress(Exception):
                self._write_study(self._store, {}, "KILLED")

    def shown(self, store: Store) -> Shown:
        """Where the study is in ``store``."""
        runs = [store.runs[key].run_id for key in self._wanted.block() if key in store.runs]
        has_summaries = any(run.tags.get("phase") == SUMMARY_PHASE for run in store.runs.values())
        return Shown(experiment_id=store.experiment_id, block=runs, has_summaries=has_summaries, is_whole=True)

    def open(self) -> Store:
        """The store, with what it holds read."""
        web = self._uri.startswith(("http://", "https://"))
        artifacts = None if web else self._root.parent / ARTIFACTS / self._spec.name
        return Store(self._uri, self._spec.name, artifacts, experiment_tags(self._spec))

    def _write_study(self, store: Store, headlines: Mapping[str, float], status: str) -> None:
        sessions = read_sessions(self._root)
        session = (sessions or [{}])[-1]
        wanted = self._wanted.study(headlines, session_tags(session), sessions, read_registration(self._root))
        store.write_study(wanted, status, session)


def _status(done: bool) -> str:
    return "FINISHED" if done else "KILLED"


def _reason(error: Exception) -> str:
    """What went wrong in a few words, without credentials: where a connection failed, the system's own."""
    text = masked(str(error)).strip()
    # the second is a database driver's, as SQLAlchemy gives it: (sqlite3.OperationalError) database is locked
    system = re.search(r"\[Errno -?\d+\] ([\w ]+)", text) or re.search(r"\(\w+\.[\w.]+\) (.+)", text)
    return system[1][:200] if system else (text.splitlines() or [type(error).__name__])[0][:200]
