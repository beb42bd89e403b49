"""The MLflow view holds what the ledger holds, exactly once, wherever writing it was broken off."""

import itertools
import math
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

import study.tracking.view as view_module
from search_spaces import Spec
from study.errors import UserError
from study.results.ledger import Contents
from study.results.provenance import note_session
from study.results.sessions import read_sessions
from study.schema import MeasureRecord, Record, ReplicateRecord
from study.tracking.runs import DIGEST, Wanted, WantedRun, headlines, pack, unpack
from study.tracking.store import masked, tracking_uri
from study.tracking.summaries import Summary
from study.tracking.view import MlflowView, find_view, replay

WRITES = (
    "create_experiment", "set_experiment_tag", "create_run", "log_batch", "log_inputs", "update_run", "set_terminated",
    "delete_run", "log_text", "log_artifact", "log_artifacts",
)  # fmt: skip
CLAIM = {
    "text": "mul is better",
    "arm": {"merge": "mul"},
    "references": [{"merge": "add"}],
    "outcomes": [{"name": "roughness", "margin": 0.1, "better": "lower"}],
}


def cell_of(value: float) -> WantedRun:
    """A cell's summary, with a picture."""
    tags = {"phase": "summary", "cell": "fake/d8/mul", DIGEST: str(value)}
    points, picture = {"epoch/val_loss": [(1, value), (2, value / 2)]}, {"planes.png": b"a picture"}
    return WantedRun(
        name="d8/mul", status="FINISHED", params={"lr": f"{value}"}, tags=tags, metrics={"test/accuracy": value},
        curves=points, seconds=5.0, figures=lambda: picture,
    )  # fmt: skip


SUMMARY = Summary(headlines={"effect/C4": 1.0}, cells=[cell_of(0.5)], description="A small study: C4 undecided")


@pytest.fixture(scope="module")
def records_of(config_of: Any, record_of: Any, measured_of: Any) -> Callable[[], list[Record]]:
    """A small ledger: a cell's search and two confirmed replicates (one collapsed), one measured, one failed."""

    def make() -> list[Record]:
        search = record_of(config_of(seed=1, lr=0.25), cell="fake/d8/add", train_seconds=2.0)
        confirm = {"phase": "confirm", "cell": "fake/d8/mul", "number": 3, "train_seconds": 3.0}
        metrics = {"train/loss": 0.5, "test/accuracy": 0.75, "test/loss": math.inf, "val/loss": 1.0}
        first = record_of(config_of(seed=2, merge="mul"), **confirm, metrics=metrics, boundary=["lr"])
        second = record_of(config_of(seed=3, merge="mul"), **confirm, state="collapsed", block=1, replicate=1)
        lost = record_of(config_of(seed=4), state="failed", cell="fake/d8/add", number=1, reason="its worker was lost")
        measure = measured_of(first["trial_key"], "m1")
        measure["estimates"] = {
            "roughness": {"value": 2.0, "stderr": 0.5, "num_samples": 8, "converged": True},
            "unknown": {"value": math.nan, "stderr": math.nan, "num_samples": 0, "converged": False},
        }
        return [search, first, second, lost, measure]

    return make


def contents_of(records: list[Record]) -> Contents:
    contents = Contents()
    for record in records:
        contents.add(record)
    return contents


def study_of(spec_of: Any, name: str) -> Spec:
    spec: Spec = spec_of(name=name, title="A small study", claims={"C4": CLAIM})
    return spec


def runs(uri: str, study: str) -> dict[str, Any]:
    """Name -> status, params, tags, metrics, one curve; asserts that no name stands twice."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        tags = {key: value for key, value in run.data.tags.items() if key not in ("mlflow.parentRunId", *pack(b""))}
        # unpacked, for compressed bytes of studies that differ in their name differ everywhere
        tags["packed"] = (unpack(run.data.tags) or b"").decode()
        curve = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "epoch/val_loss")]
        assert run.info.run_name not in found
        found[run.info.run_name] = (run.info.status, run.data.params, tags, run.data.metrics, curve)
    return found


def test_every_replicate_once(uri: str, tmp_path: Path, spec_of: Any, records_of: Any) -> None:
    spec = study_of(spec_of, "once")
    root = tmp_path / "once"
    (root / "tables").mkdir(parents=True)
    (root / "tables" / "effects.csv").write_text("a,b\n")
    (root / "report.html").write_text("<!DOCTYPE html>")
    note_session(root, ["fake"])
    shown = replay(spec, root, contents_of(records_of()), uri, Summary(headlines={"effect/C4": -0.5}), done=True)
    held = runs(uri, "once")
    assert set(held) == {"once", "d8/add b0 #0", "d8/add b0 #1", "d8/mul b0 confirm", "d8/mul b1 confirm"}

    status, params, tags, metrics, curve = held["d8/mul b0 confirm"]
    assert status == "FINISHED"
    assert params["merge"] == "mul" and params["lr"] == "0.1" and params["cell"] == "fake/d8/mul"
    assert {name: tags[name] for name in ("cell", "phase", "block", "replicate", "state", "boundary", "superseded")} == {
        "cell": "fake/d8/mul", "phase": "confirm", "block": "0", "replicate": "0", "state": "completed",
        "boundary": "lr", "superseded": "no",
    }  # fmt: skip
    assert tags["not_converged"] == "unknown" and "reason" not in tags
    assert metrics["roughness"] == 2.0 and metrics["roughness_stderr"] == 0.5 and metrics["train_seconds"] == 3.0
    assert not {"test/loss", "unknown", "unknown_stderr"} & set(metrics)
    assert curve == [(1, 2.0), (2, 1.0)]
    assert len({frozenset(held[name][1]) for name in held if name != "once"}) == 1
    assert held["d8/mul b1 confirm"][0] == "FINISHED" and held["d8/mul b1 confirm"][2]["state"] == "collapsed"
    assert held["d8/add b0 #1"][0] == "FAILED" and held["d8/add b0 #1"][2]["reason"] == "its worker was lost"

    client = MlflowClient(uri)
    parent = next(run for run in client.search_runs([shown.experiment_id]) if run.info.run_name == "once")
    children = client.search_runs([shown.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert len(children) == 4 and parent.info.status == "FINISHED" and len(shown.block) == 1
    assert parent.data.metrics["effect/C4"] == -0.5 and parent.data.metrics["num_failed"] == 1
    assert parent.data.tags["device"] == "cpu" and "version.torch" in parent.data.tags
    (dataset,) = parent.inputs.dataset_inputs
    assert dataset.dataset.name == "fake"
    assert dataset.dataset.digest == read_sessions(root)[0]["datasets"]["fake"]["digest"]
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert files == {"spec.yaml", "provenance.json", "tables", "report.html"}
    text = Path(client.download_artifacts(parent.info.run_id, "spec.yaml", str(tmp_path))).read_text()
    assert Spec.model_validate(yaml.safe_load(text)) == spec


def test_replaying_again_changes_nothing(
    uri: str, tmp_path: Path, spec_of: Any, records_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, contents = study_of(spec_of, "again"), contents_of(records_of())
    replay(spec, tmp_path, contents, uri, Summary(), done=True)
    before = runs(uri, "again")
    calls: list[str] = []

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: calls.append(name) or call(*args, **kwargs)

    around(monkeypatch, wrap)
    replay(spec, tmp_path, contents, uri, Summary(), done=True)
    # the specification is put there each time (log_text calls log_artifact), and nothing else
    assert calls == ["log_text", "log_artifact"]
    assert runs(uri, "again") == before


def test_broken_off_anywhere(
    uri: str, tmp_path: Path, spec_of: Any, records_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every call, before it reached the store and after (the answer was lost), then replayed."""
    contents = contents_of(records_of())
    replay(study_of(spec_of, "whole"), tmp_path, contents, uri, SUMMARY, done=True)
    wanted = anonymous(runs(uri, "whole"), "whole")
    for k in itertools.count(1):
        broken = False
        for arrived in (False, True):
            name = f"broken-{k}-{arrived}"
            spec = study_of(spec_of, name)
            with monkeypatch.context() as patch:
                left = break_at(patch, k, arrived=arrived)
                try:
                    replay(spec, tmp_path, contents, uri, SUMMARY, done=True)
                except UserError as error:
                    assert "the cable" in str(error)
            broken |= left() == 0
            replay(spec, tmp_path, contents, uri, SUMMARY, done=True)
            assert anonymous(runs(uri, name), name) == wanted
            assert picture_and_note(uri, name) == (b"a picture", "A small study: C4 undecided")
        if not broken:
            break
    assert k > 15


def test_a_summary_that_changed_is_written_anew(uri: str, tmp_path: Path, spec_of: Any, records_of: Any) -> None:
    spec, contents = study_of(spec_of, "summed"), contents_of(records_of())
    assert find_view(spec, contents, uri) is None
    replay(spec, tmp_path, contents, uri, SUMMARY, done=True)
    before = find_view(spec, contents, uri)
    replay(spec, tmp_path, contents, uri, SUMMARY, done=True)
    assert before == find_view(spec, contents, uri) and before.is_whole and before.has_summaries
    # the next session of a study says its verdicts at its end
    replay(spec, tmp_path, contents, uri, Summary(), done=False)
    assert picture_and_note(uri, "summed") == (b"a picture", SUMMARY.description)
    replay(spec, tmp_path, contents, uri, Summary(cells=[cell_of(0.25)], description="C4 refuted"), done=True)
    status, params, _, metrics, curve = runs(uri, "summed")["d8/mul"]
    assert (status, params, metrics) == ("FINISHED", {"lr": "0.25"}, {"test/accuracy": 0.25, "epoch/val_loss": 0.125})
    assert curve == [(1, 0.25), (2, 0.125)] and picture_and_note(uri, "summed")[1] == "C4 refuted"
    assert len(runs(uri, "summed")) == 6


def test_a_view_is_whole_where_it_was_written_to_its_end(
    uri: str, tmp_path: Path, spec_of: Any, records_of: Any
) -> None:
    spec, records = study_of(spec_of, "to-its-end"), records_of()
    replay(spec, tmp_path, contents_of(records[:-1]), uri, SUMMARY, done=True)
    measured, client = contents_of(records), MlflowClient(uri)
    assert find_view(spec, contents_of(records[:-1]), uri).is_whole  # type: ignore[union-attr]
    assert not find_view(spec, measured, uri).is_whole  # type: ignore[union-attr]
    shown = replay(spec, tmp_path, measured, uri, SUMMARY, done=True)
    assert find_view(spec, measured, uri) == shown and len(shown.block) == 1
    # pages of another version
    client.set_experiment_tag(shown.experiment_id, "mlflow.sharedViewState.cells", "deflate;")
    assert not find_view(spec, measured, uri).is_whole  # type: ignore[union-attr]
    replay(spec, tmp_path, measured, uri, SUMMARY, done=True)
    (parent,) = client.search_runs([shown.experiment_id], "tags.phase = 'study'")
    client.update_run(parent.info.run_id, status="RUNNING")
    assert not find_view(spec, measured, uri).is_whole  # type: ignore[union-attr]


def test_failed_then_completed_and_new_statistic(
    uri: str, tmp_path: Path, spec_of: Any, records_of: Any, record_of: Any, config_of: Any, measured_of: Any
) -> None:
    spec, records = study_of(spec_of, "later"), records_of()
    replay(spec, tmp_path, contents_of(records), uri, Summary(), done=False)
    assert runs(uri, "later")["later"][0] == "KILLED"
    again = record_of(config_of(seed=4), cell="fake/d8/add", number=1, loss=0.25)
    more: MeasureRecord = measured_of(records[1]["trial_key"], "m2", statistic="noise")
    more["estimates"] = {"flips": {"value": 0.5, "stderr": 0.25, "num_samples": 8, "converged": True}}
    superseding = record_of(config_of(seed=9, merge="mul"), cell="fake/d8/mul", phase="confirm", number=7)
    shown = replay(spec, tmp_path, contents_of([*records, again, more]), uri, Summary(), done=True)
    held = runs(uri, "later")
    assert len(held) == 5
    status, _, tags, metrics, curve = held["d8/add b0 #1"]
    assert (status, tags["state"], tags["reason"], curve) == ("FINISHED", "completed", "", [(1, 0.5), (2, 0.25)])
    assert held["d8/mul b0 confirm"][3]["flips"] == 0.5 and held["d8/mul b0 confirm"][3]["roughness"] == 2.0
    assert metrics["val/loss"] == 0.25
    after = find_view(spec, contents_of([*records, again, more, superseding]), uri)
    replay(spec, tmp_path, contents_of([*records, again, more, superseding]), uri, Summary(), done=True)
    found = MlflowClient(uri).search_runs([shown.experiment_id], "tags.superseded = 'yes'")
    assert [run.data.tags["trial_key"] for run in found] == [records[1]["trial_key"]]
    assert after.experiment_id == shown.experiment_id


def test_view_follows_and_is_killed(uri: str, tmp_path: Path, spec_of: Any, records_of: Any) -> None:
    spec, records, said = study_of(spec_of, "follows"), records_of(), []
    with MlflowView(spec, tmp_path, contents_of(records[:1]), uri, said.append) as view:
        for record in records[1:]:
            view.tell(record)
        assert view.finish(Summary(headlines={"effect/C4": 1.0}), done=True, timeout=60)
    assert len(runs(uri, "follows")) == 5 and runs(uri, "follows")["follows"][0] == "FINISHED"
    with pytest.raises(RuntimeError), MlflowView(spec, tmp_path, contents_of(records), uri, said.append):
        raise RuntimeError("the driver fell over")
    assert runs(uri, "follows")["follows"][0] == "KILLED"
    assert not said


def test_a_view_begins_with_the_first_record(
    uri: str, tmp_path: Path, spec_of: Any, records_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or after a while: before that the cores have a study to start."""
    spec, records, said = study_of(spec_of, "begins"), records_of(), []
    opened: queue.SimpleQueue[None] = queue.SimpleQueue()
    opens = view_module._Replay.open
    monkeypatch.setattr(view_module._Replay, "open", lambda replayed: opened.put(None) or opens(replayed))
    with MlflowView(spec, tmp_path, contents_of([]), uri, said.append) as view:
        with pytest.raises(queue.Empty):
            opened.get(timeout=1.0)
        view.tell(records[0])
        opened.get(timeout=30)
    monkeypatch.setattr(view_module, "BEGIN_SECONDS", 0.1)
    with MlflowView(spec, tmp_path, contents_of([]), uri, said.append):
        opened.get(timeout=30)


def test_names_the_dataset_where_there_are_several(spec_of: Any, record_of: Any, config_of: Any) -> None:
    record: ReplicateRecord = record_of(config_of(), cell="fake/d8/add", block=2, number=5)
    one = spec_of()
    fixed = {key: value for key, value in one.fixed.items() if key != "dataset"}
    two = spec_of(factors={"merge": ["add"], "dataset": ["fake", "digits"]}, fixed=fixed)
    assert Wanted(one, Contents()).name(record) == "d8/add b2 #5"
    assert Wanted(two, Contents()).name(record) == "fake/d8/add b2 #5"


def test_headlines() -> None:
    row = {"claim": "C4", "role": "primary", "dataset": "fake", "stratum": "all", "outcome": "test/accuracy"}
    row |= {"arm": "merge=mul", "reference": "merge=add", "mean_difference": 0.5, "ci_low": 0.25, "ci_high": None}
    silent = row | {"claim": "C3", "mean_difference": None}
    control = row | {"claim": "", "role": "control", "arm": "merge=add_alias"}
    name = "effect/C4 mul-add test accuracy"
    control_name = "effect/A-A add_alias-add test accuracy"
    assert headlines([row, silent, control, control | {"outcome": "val/loss"}, row | {"stratum": "depth=8"}]) == {
        name: 0.5, f"{name} low": 0.25, control_name: 0.5, f"{control_name} low": 0.25
    }  # fmt: skip


def test_credentials_are_masked() -> None:
    assert masked("no http://ann:s3cret@host:5000/x there") == "no http://***@host:5000/x there"
    assert "s3cret" not in masked("postgresql://ann:s3@cret@host/db?password=s3cret&x=1")


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tracking store"):
        tracking_uri(uri, tmp_path)


def picture_and_note(uri: str, study: str) -> tuple[bytes, str]:
    """What lies in the folder of the summary of a cell, and the experiment's description."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    (run,) = client.search_runs([experiment.experiment_id], "tags.phase = 'summary'")
    drawn = Path(client.download_artifacts(run.info.run_id, "figures/planes.png")).read_bytes()
    return drawn, experiment.tags["mlflow.note.content"]


def anonymous(held: dict[str, Any], study: str) -> dict[str, Any]:
    """Runs without what names the study."""
    return {
        name.replace(study, "*"): (status, params, {k: v.replace(study, "*") for k, v in tags.items()}, metrics, curve)
        for name, (status, params, tags, metrics, curve) in held.items()
    }


def around(patch: pytest.MonkeyPatch, wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Wrap every method that writes."""
    for name in WRITES:
        patch.setattr(MlflowClient, name, wrap(name, getattr(MlflowClient, name)))


def break_at(patch: pytest.MonkeyPatch, k: int, *, arrived: bool) -> Callable[[], int]:
    """Fail at the ``k``-th write and all after it; returns how many writes are left until then."""
    left = k

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left = max(left - 1, 0)
            if left == 0 and not arrived:
                raise OSError("the cable was pulled")
            answer = call(*args, **kwargs)
            if left == 0:
                raise OSError("the cable was pulled")
            return answer

        return wrapped

    around(patch, wrap)
    return lambda: left
