"""The audit of the MLflow view: silent on a whole view, one line for each thing that is wrong, and it changes nothing."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from analysis.inputs import Inputs
from study.checks.audit import audit_view
from study.results.ledger import Contents
from study.tracking.runs import DIGEST, pack
from study.tracking.store import HeldRun, read_runs, tracking_uri
from study.tracking.summaries import Summary, summarise
from study.tracking.view import replay


@pytest.fixture
def study(request: Any, uri: str, tmp_path: Path, spec_of: Any, config_of: Any, record_of: Any) -> tuple[Any, Contents]:
    """A view of a study of its own, written whole."""
    name = request.node.name.removeprefix("test_")
    contents = Contents()
    for seed in (1, 2):
        contents.add(record_of(config_of(seed=seed), cell="fake/d8/add", number=seed, train_seconds=1.0))
    spec = spec_of(name=name)
    replay(spec, tmp_path / name, contents, uri, Summary(), done=True)
    return spec, contents


def held(uri: str, name: str) -> dict[str, HeldRun]:
    return {run.tags.get("trial_key", "study"): run for run in read_runs(uri, name)}


def test_a_whole_view(uri: str, study: Any) -> None:
    spec, contents = study
    before = held(uri, spec.name)
    assert list(audit_view(spec, contents, uri)) == []
    assert held(uri, spec.name) == before


def test_a_missing_run_and_one_too_many(uri: str, study: Any) -> None:
    spec, contents = study
    first, second = contents.replicates
    client = MlflowClient(uri)
    client.delete_run(held(uri, spec.name)[first].run_id)
    copied = held(uri, spec.name)[second]
    experiment = client.get_experiment_by_name(spec.name).experiment_id
    client.set_terminated(client.create_run(experiment, tags=copied.tags).info.run_id)
    found = list(audit_view(spec, contents, uri))
    assert found == [f"mlflow: {first} has 0 runs", f"mlflow: {second} has 2 runs"]


def test_a_run_left_running_and_a_foreign_one(uri: str, study: Any) -> None:
    spec, contents = study
    client = MlflowClient(uri)
    run = held(uri, spec.name)[next(iter(contents.replicates))]
    client.update_run(run.run_id, status="RUNNING")
    experiment = client.get_experiment_by_name(spec.name).experiment_id
    foreign = client.create_run(experiment, tags={"trial_key": "ffff"})
    client.set_terminated(foreign.info.run_id)
    found = list(audit_view(spec, contents, uri))
    assert found == [f"mlflow: run {run.name!r} ({run.run_id}) is left RUNNING", "mlflow: ffff is not in the ledger"]


def test_another_value(uri: str, study: Any) -> None:
    spec, contents = study
    key = next(iter(contents.replicates))
    MlflowClient(uri).log_metric(held(uri, spec.name)[key].run_id, "val/loss", 0.125)
    (fault,) = audit_view(spec, contents, uri)
    assert fault == f"mlflow: {key} val/loss is 0.125, in the ledger 1.0"


def test_a_summary_that_is_missing_or_of_other_results(
    uri: str, tmp_path: Path, spec_of: Any, config_of: Any, record_of: Any
) -> None:
    spec, contents, client = spec_of(name="summed-up"), Contents(), MlflowClient(uri)
    for block in range(2):
        accuracy = {"test/accuracy": 0.5 + block / 4}
        about = {"cell": "fake/d8/add", "phase": "confirm", "block": block, "replicate": block, "metrics": accuracy}
        contents.add(record_of(config_of(seed=block), **about))
    summary = summarise(Inputs(spec=spec, contents=contents, chance={"fake": 0.1}))
    again = "(written by: fmm-study ui summed-up)"

    def found() -> list[str]:
        return list(audit_view(spec, contents, uri, summary.cells))

    replay(spec, tmp_path / "summed-up", contents, uri, Summary(), done=True)
    assert found() == [f"mlflow: the summary of d8/add has 0 runs {again}"]
    replay(spec, tmp_path / "summed-up", contents, uri, summary, done=True)
    assert found() == []
    (run,) = [run for run in read_runs(uri, "summed-up") if run.tags["phase"] == "summary"]
    client.log_metric(run.run_id, "test/accuracy", 0.25)
    assert found() == ["mlflow: the summary of d8/add test/accuracy is 0.25, in the ledger 0.625"]
    client.set_tag(run.run_id, DIGEST, "0")
    assert found() == [f"mlflow: the summary of d8/add is of other results {again}"]
    client.set_tag(run.run_id, "cell", "fake/d8/mul")
    assert found()[1:] == ["mlflow: the summary of fake/d8/mul is not of the ledger"]
    replay(spec, tmp_path / "summed-up", contents, uri, summary, done=True)
    assert found() == ["mlflow: the summary of fake/d8/mul is not of the ledger"]


def test_other_lines_than_the_ledgers(uri: str, study: Any) -> None:
    spec, contents = study
    key, other = contents.replicates
    runs, client = held(uri, spec.name), MlflowClient(uri)
    for name in pack(b""):
        client.set_tag(runs[key].run_id, name, runs[other].tags[name])
    found = list(audit_view(spec.model_copy(update={"alpha": 0.1}), contents, uri))
    assert found == [
        f"mlflow: the specification there is not this one (written by: fmm-study ui {spec.name})",
        f"mlflow: {key} does not hold the ledger's lines (written by: fmm-study ui {spec.name})",
    ]


def test_nothing_there(tmp_path: Path, spec_of: Any) -> None:
    (fault,) = audit_view(spec_of(), Contents(), tracking_uri(None, tmp_path))
    assert "holds nothing of small" in fault and not (tmp_path / "mlflow.db").exists()
