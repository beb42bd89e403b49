"""MLflow's database locked, or broken off in the making; its values where the clock was set back. Its server has a file."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine

from study.results.ledger import Contents
from study.tracking.sqlite import is_missing
from study.tracking.store import prepare
from study.tracking.summaries import Summary
from study.tracking.view import MlflowView, replay


def test_a_locked_database_of_mlflow(
    tmp_path: Path, spec_of: Any, config_of: Any, record_of: Any, uri: str, request: pytest.FixtureRequest
) -> None:
    """Another program holds the lock of the whole database for a part of the study: the study waits for nothing."""
    made = [
        record_of(config_of(seed=seed), cell="d8/add", phase="confirm", block=seed, replicate=seed) for seed in range(9)
    ]
    said: list[str] = []
    # MLflow waits 20 s for a lock
    request.addfinalizer(lambda: event.remove(Engine, "before_cursor_execute", _impatient))
    event.listen(Engine, "before_cursor_execute", _impatient, retval=True)
    begun = time.monotonic()
    with MlflowView(spec_of(name="locked"), tmp_path / "locked", Contents(), uri, said.append) as view:
        for record in made[:3]:
            view.tell(record)
        _wait_for(lambda: bool(said) or _num_runs(uri) > 2)
        with sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            for record in made[3:]:
                view.tell(record)
            assert time.monotonic() - begun < 60
            _wait_for(lambda: bool(said))
            assert (
                "cannot be written: database is locked; " in said[0]
                and "the study goes on" in said[0]
                and "\n" not in said[0]
            )
            other.execute("ROLLBACK")
        assert view.finish(Summary(), done=True)
    assert len(said) == 2 and "can be written again" in said[1]
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("locked").experiment_id])
    keys = [run.data.tags["trial_key"] for run in found if "trial_key" in run.data.tags]
    assert sorted(keys) == sorted(record["trial_key"] for record in made)
    assert {run.info.status for run in found} == {"FINISHED"}


def _impatient(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
    return statement.replace("busy_timeout = 20000", "busy_timeout = 500"), parameters


def _num_runs(uri: str) -> int:
    # which MLflow would make
    if is_missing(uri):
        return 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("locked")
    return 0 if experiment is None else len(client.search_runs([experiment.experiment_id]))


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_mlflow_shows_the_newest_value_where_the_clock_was_set_back(
    tmp_path: Path, spec_of: Any, config_of: Any, record_of: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the latest point for the value: a headline written by a clock set back would never be seen."""
    spec, made = spec_of(name="clock"), record_of(config_of(seed=1), cell="d8/add", phase="confirm")
    contents, real = Contents(replicates={made["trial_key"]: made}), time.time_ns
    back = 0
    monkeypatch.setattr(time, "time_ns", lambda: real() - back)
    monkeypatch.setattr(time, "time", lambda: (real() - back) / 1e9)
    for hours, value in enumerate((0.5, 0.25, 0.75, 0.125)):
        back = hours * 3600 * 10**9
        replay(spec, tmp_path / "clock", contents, uri, Summary(headlines={"effect/C4": value}), done=True)
        client = MlflowClient(uri)
        found = client.search_runs([client.get_experiment_by_name("clock").experiment_id])
        (parent,) = [run for run in found if "trial_key" not in run.data.tags]
        assert parent.data.metrics["effect/C4"] == value and len(found) == 2
        assert parent.info.end_time >= parent.info.start_time


def test_a_schema_broken_off_in_its_midst_leaves_no_database(tmp_path: Path) -> None:
    """MLflow could neither use nor finish it: a column would be there already."""
    path = tmp_path / "mlflow.db"

    def broken_off(uri: str) -> None:
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as half:
            half.execute("CREATE TABLE metrics (step INTEGER)")
        raise sqlite3.OperationalError("database or disk is full")

    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            prepare(f"sqlite:///{path}", broken_off)
        assert list(tmp_path.iterdir()) == []

    def whole(uri: str) -> None:
        sqlite3.connect(uri.removeprefix("sqlite:///")).execute("CREATE TABLE metrics (step INTEGER)")
        if other:
            sqlite3.connect(path).execute(f"CREATE TABLE {other} (step INTEGER)")

    # another driver is quicker; a file of no bytes, which a power cut leaves, is no database
    other: str | None
    for other in ("another", None):
        path.unlink(missing_ok=True)
        path.write_bytes(b"")
        prepare(f"sqlite:///{path}", whole)
        assert path in tmp_path.iterdir() and not any(file.is_dir() for file in tmp_path.iterdir())
        with sqlite3.connect(path) as made:
            assert made.execute("SELECT name FROM sqlite_master").fetchall() == [(other or "metrics",)]
