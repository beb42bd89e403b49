"""A tracking store: what it holds of a study, and writing what it lacks. The only module that imports mlflow.

MLflow takes seconds to import, so it is imported inside functions. Every write starts from what the store holds, so a view
broken off anywhere is mended by writing it again. A run is whole once its status, which is set last, agrees with the ledger.
Any other is written in full under the same run id with the same times, which MLflow takes as the same points. Of two runs
with one trial key the older stays.
"""

import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.atomic import replacing
from study.errors import UserError
from study.tracking.pages import NOTE
from study.tracking.runs import DIGEST, STUDY_PHASE, WantedRun, run_key
from study.tracking.sqlite import (
    ARTIFACTS,
    follow,
    is_missing,
    prepare,
    readable,
    sqlite_path,
    sqlite_uri,
    without_strays,
)

# MLflow's limits: metrics per request, parameters or tags per request, runs per answer
_MAX_METRICS, _MAX_OTHERS = 1000, 100
_PAGE = 1000
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow prints a link per run, with whatever credentials the address holds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # retries are made by the view, from what the store then holds: MLflow's own may create a run twice, and wait for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def tracking_uri(uri: str | None, results: Path) -> str:
    """``uri``, or the SQLite database of all studies under ``results``. Raises ``UserError`` for what is no address."""
    if not uri:
        return sqlite_uri(results.resolve() / "mlflow.db")
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"tracking URI {masked(uri)!r}: a folder is no tracking store; use sqlite:///FILE or http(s)://HOST:PORT"
        )
    if sqlite_path(uri) and "?" in uri and not re.search(r"\?\w+=[^/?]*$", uri):
        raise UserError(f"tracking URI {masked(uri)!r}: in a path, write %3F for ?, %25 for % and %23 for #")
    return uri


def masked(text: str) -> str:
    """``text`` without the user names, passwords and tokens of addresses; in doubt more is hidden."""
    text = re.sub(r"://\S*@", "://***@", text)
    text = re.sub(r"[^\s'\"/]+:[^\s'\"/]+@", "***@", text)  # an address whose scheme was forgotten
    secret = r"([?&][\w-]*(?:password|token|secret|key|signature)=)[^&\s'\"]*"
    return re.sub(secret, r"\1***", text, flags=re.IGNORECASE)


def without_credentials(uri: str) -> str:
    """``uri`` as a browser needs it: no user name, no password."""
    return re.sub(r"://\S*@", "://", uri)


@dataclass(kw_only=True)
class HeldRun:
    """A run as the store holds it; ``start`` and ``end`` in milliseconds of Unix time, ``end`` 0 while it is running.

    ``files``: the address of its artifacts.
    """

    run_id: str
    name: str
    status: str
    start: int
    end: int = 0
    files: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)
    metrics: dict[str, float] = field(default_factory=dict)
    datasets: set[str] = field(default_factory=set)


class Store:
    """One study in one tracking store. Methods raise what MLflow raises; after that, make a new one.

    ``artifacts``: where the files of a new experiment go; ``None`` leaves it to the server.
    """

    def __init__(self, uri: str, study: str, artifacts: Path | None, tags: Mapping[str, str]) -> None:
        prepare(uri, _make_schema)
        self._uri, self._client = uri, _client(uri)
        self.runs: dict[str, HeldRun] = {}
        self.study: HeldRun | None = None
        self.experiment_id = self._experiment(study, artifacts, tags)
        self._read()

    def write(self, wanted: WantedRun) -> None:
        """Make the run of a replicate, or of a cell's summary, whole. Needs ``self.study``."""
        assert self.study is not None
        key = run_key(wanted.tags)
        assert key is not None
        tags = wanted.tags | {"mlflow.parentRunId": self.study.run_id}
        held = self.runs.get(key)
        if held is not None and held.tags.get(DIGEST, "") != tags.get(DIGEST, ""):
            # a summary that has changed: neither parameters nor points can be taken back
            self._client.delete_run(self.runs.pop(key).run_id)
            held = None
        if held is None:
            held = self.runs[key] = self._create(wanted.name, tags, wanted.seconds)
        end = held.start + round(1000 * wanted.seconds)
        # RUNNING: broken off; FAILED, and completed since: of an earlier attempt
        lacking = held.status != wanted.status
        self._log(held, wanted, tags, None if lacking else self._late(held, wanted))
        if lacking:
            if wanted.figures:
                with tempfile.TemporaryDirectory(prefix="fmm-study-") as folder:
                    for name, drawn in wanted.figures().items():
                        (Path(folder) / name).write_bytes(drawn)
                    self._client.log_artifacts(held.run_id, folder, "figures")
            self._client.set_terminated(held.run_id, wanted.status, end)
            held.status = wanted.status

    def write_study(self, wanted: WantedRun, status: str, session: Mapping[str, Any]) -> None:
        """Bring the parent run up to date and to ``status``. ``session``: datasets of ``study/results/provenance.py``."""
        if self.study is None:
            self.study = self._create(wanted.name, wanted.tags, 0)
        held = self.study
        self._log(held, wanted, wanted.tags, self._late(held, wanted))
        self._log_datasets(held, session.get("datasets", {}))
        if held.status != status:
            if status == "RUNNING":
                self._client.update_run(held.run_id, status=status)
            else:
                self._client.set_terminated(held.run_id, status, max(_now(), held.start))
            held.status = status

    def describe(self, text: str) -> None:
        """Let the experiment's description be ``text``."""
        if self._tags.get(NOTE) != text:
            self._client.set_experiment_tag(self.experiment_id, NOTE, text)
            self._tags[NOTE] = text

    def write_files(self, texts: Mapping[str, str], paths: Iterable[Path]) -> None:
        """Put texts, files and folders (those that are there) under the parent run's artifacts."""
        assert self.study is not None
        for name, text in texts.items():
            self._client.log_text(self.study.run_id, text, name)
        for path in paths:
            if path.is_dir():
                self._client.log_artifacts(self.study.run_id, str(path), path.name)
            elif path.exists():
                self._client.log_artifact(self.study.run_id, str(path))

    def _experiment(self, study: str, artifacts: Path | None, tags: Mapping[str, str]) -> str:
        experiment = self._client.get_experiment_by_name(study)
        if experiment is None:
            location = None if artifacts is None else artifacts.resolve().as_uri()
            self._tags = dict(tags)
            return str(self._client.create_experiment(study, location, dict(tags)))
        if artifacts is not None:
            follow(self._uri, experiment.experiment_id, experiment.artifact_location, artifacts)
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        self._tags = dict(experiment.tags)
        for name, value in tags.items():
            # a description that says verdicts stays until there are others
            if self._tags.get(name) != value and not (name == NOTE and name in self._tags):
                self._client.set_experiment_tag(experiment.experiment_id, name, value)
        return str(experiment.experiment_id)

    def _read(self) -> None:
        """Take in all runs of the experiment; remove the younger of two with one key, which a lost answer leaves."""
        doubles: list[HeldRun] = []
        for run in sorted(_pages(self._client, self.experiment_id), key=lambda run: (run.start, run.run_id)):
            key = run_key(run.tags)
            if key is not None:
                kept = self.runs.setdefault(key, run)
            elif run.tags.get("phase") == STUDY_PHASE:
                kept = self.study = self.study or run
            else:
                continue
            if kept is not run:
                doubles.append(run)
        for run in doubles:
            self._client.delete_run(run.run_id)

    def _create(self, name: str, tags: Mapping[str, str], seconds: float) -> HeldRun:
        start = _now() - round(1000 * seconds)
        source = {"mlflow.source.name": "fmm-study", "mlflow.source.type": "LOCAL"}
        tags = {key: value for key, value in tags.items() if value} | source
        run = self._client.create_run(self.experiment_id, start, tags, name)
        return HeldRun(run_id=run.info.run_id, name=name, status="RUNNING", start=start, tags=tags)

    def _log(self, held: HeldRun, wanted: WantedRun, tags: Mapping[str, str], late: int | None) -> None:
        """Write what is lacking. ``late``: the time of new values in a run that is whole; ``None`` writes it in full."""
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(*point) for point in _points(held, wanted, late)]
        params = [Param(name, value) for name, value in wanted.params.items() if name not in held.params]
        # an empty tag is written only to take back what an earlier attempt said
        changed = {name: value for name, value in tags.items() if held.tags.get(name, "") != value}
        marks = [RunTag(name, value) for name, value in changed.items()]
        while points or params or marks:
            self._client.log_batch(held.run_id, points[:_MAX_METRICS], params[:_MAX_OTHERS], marks[:_MAX_OTHERS])
            points, params, marks = points[_MAX_METRICS:], params[_MAX_OTHERS:], marks[_MAX_OTHERS:]
        if held.name != wanted.name:
            self._client.update_run(held.run_id, name=wanted.name)
        held.name = wanted.name
        held.params |= set(wanted.params)
        held.tags |= changed
        held.metrics |= wanted.latest

    def _late(self, held: HeldRun, wanted: WantedRun) -> int:
        """Now, or later where the clock was set back: MLflow takes a metric's latest point for its value."""
        latest = wanted.latest
        changed = [name for name in wanted.metrics if held.metrics.get(name, latest[name]) != latest[name]]
        points = [point for name in changed for point in self._client.get_metric_history(held.run_id, name)]
        return max([_now(), *(int(point.timestamp) + 1 for point in points)])

    def _log_datasets(self, held: HeldRun, datasets: Mapping[str, Mapping[str, Any]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for name, facts in datasets.items():
            if f"{name} {facts['digest']}" not in held.datasets:
                held.datasets.add(f"{name} {facts['digest']}")
                sizes = {key: value for key, value in facts.items() if key not in ("digest", "source")}
                source = json.dumps({"source": facts["source"]})
                dataset = Dataset(name, facts["digest"], "code", source, profile=json.dumps(sizes))
                inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", "training")]))
        if inputs:
            self._client.log_inputs(held.run_id, inputs)


@dataclass(frozen=True, kw_only=True)
class FoundStudy:
    """A study in a store: its experiment, the runs for the study itself, and those that were asked for."""

    experiment_id: str
    tags: Mapping[str, str]
    parents: list[HeldRun]
    runs: list[HeldRun]


def find_study(uri: str, study: str, filters: Iterable[str]) -> FoundStudy | None:
    """The runs of a study that fit one of ``filters``, changing nothing; ``None`` without one. Raises what MLflow raises."""
    if is_missing(uri):
        return None
    client = _client(readable(uri))
    experiment = client.get_experiment_by_name(study)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return None
    number = experiment.experiment_id
    return FoundStudy(
        experiment_id=str(number),
        tags=experiment.tags,
        parents=list(_pages(client, number, f"tags.phase = '{STUDY_PHASE}'")),
        runs=[run for each in filters for run in _pages(client, number, each)],
    )


def read_runs(uri: str, study: str) -> list[HeldRun]:
    """Every run of a study as a store holds it, changing nothing; empty where there is none. Raises what MLflow raises."""
    if is_missing(uri):
        return []
    client = _client(readable(uri))
    experiment = client.get_experiment_by_name(study)
    return [] if experiment is None else list(_pages(client, experiment.experiment_id))


def fetch_files(uri: str, study: str, run_id: str, names: Iterable[str], into: Path) -> None:
    """Bring ``names``, files under one folder of a run's artifacts, to ``into``. Raises what MLflow raises.

    Those of a study beside its SQLite store are taken from there, wherever both were when they were written.
    """
    into.mkdir(parents=True, exist_ok=True)
    path = sqlite_path(uri)
    beside = path.parent / ARTIFACTS / study / run_id / "artifacts" if path else None
    if beside is None or not beside.is_dir():
        for folder in {name.partition("/")[0] for name in names}:
            _client(readable(uri)).download_artifacts(run_id, folder, str(into))
        return
    for name in names:
        if (beside / name).is_file():
            with replacing(into / name) as partial:
                shutil.copyfile(beside / name, partial)


def study_names(uri: str) -> list[str]:
    """Names of the experiments that a store holds, changing nothing. Raises what MLflow raises."""
    if is_missing(uri):
        return []
    return [experiment.name for experiment in _client(readable(uri)).search_experiments()]


def _client(uri: str) -> Any:
    client = _mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)
    if sqlite_path(uri) and "%" in uri:
        # which opens the store
        client.search_experiments(max_results=1)
        without_strays(uri)
    return client


def _mlflow() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    # what it raises is told in one line; it would also log it, with its traceback
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return mlflow


def _make_schema(uri: str) -> None:
    _mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, "./mlruns").engine.dispose()
    without_strays(uri)


def _pages(client: Any, experiment_id: str, wanted: str = "") -> Iterator[HeldRun]:
    token = None
    while True:
        page = client.search_runs([experiment_id], wanted, max_results=_PAGE, page_token=token)
        for run in page:
            yield HeldRun(
                run_id=run.info.run_id,
                name=run.info.run_name or "",
                status=run.info.status,
                files=run.info.artifact_uri or "",
                start=run.info.start_time or 0,
                end=run.info.end_time or 0,
                tags=dict(run.data.tags),
                params=set(run.data.params),
                metrics=dict(run.data.metrics),
                datasets={f"{i.dataset.name} {i.dataset.digest}" for i in run.inputs.dataset_inputs},
            )
        token = page.token
        if not token:
            return


def _points(held: HeldRun, wanted: WantedRun, late: int | None) -> list[tuple[str, float, int, int]]:
    """(name, value, time, step) of every point to write. A run that is whole gets only what it lacks, at time ``late``."""
    if late is not None:
        latest = wanted.latest
        lacking = [name for name in wanted.metrics if held.metrics.get(name) != latest[name]]
        return [(name, latest[name], late, 0) for name in lacking]
    final = held.start + round(1000 * wanted.seconds)
    points = [(name, value, final, 0) for name, value in wanted.metrics.items()]
    for name, curve in wanted.curves.items():
        spacing = 1000 * wanted.seconds / curve[-1][0]
        points += [(name, value, held.start + round(spacing * step), step) for step, value in curve]
    return points


def _now() -> int:
    return time.time_ns() // 1_000_000
