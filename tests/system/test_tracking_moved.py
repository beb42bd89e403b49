"""A results folder that was moved, made read-only or oddly named: MLflow's files follow it, and reading needs no writing."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import fmm_study
from disks import Disk, mounted
from read_back import texts, written

from study.checks.audit import audit_view
from study.commands.show import in_folder, in_store
from study.errors import UserError
from study.results.ledger import read_ledger
from study.results.workspace import Workspace
from study.tracking.guard import inside
from study.tracking.runs import STUDY_PHASE
from study.tracking.sqlite import sqlite_path, sqlite_uri
from study.tracking.store import read_runs, tracking_uri
from study.tracking.summaries import Summary
from study.tracking.view import replay

NAME = "moved"


@pytest.fixture(scope="module")
def results(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with store, files and one study, which is nowhere else any more."""
    made = sqlite_path(uri)
    assert made is not None
    spec, workspace = written(made.parent, NAME)
    replay(spec, workspace.root, read_ledger(workspace.ledger), uri, Summary(), done=True)
    folder = tmp_path_factory.mktemp("put away")
    shutil.copyfile(made, folder / made.name)
    shutil.copyfile(made.with_name(f"{made.name}-wal"), folder / f"{made.name}-wal")
    for name in (NAME, f"mlartifacts/{NAME}"):
        shutil.move(made.parent / name, folder / name)
    return folder


def files_of(uri: str) -> str:
    (parent,) = (run for run in read_runs(uri, NAME) if run.tags.get("phase") == STUDY_PHASE)
    return parent.files


@pytest.mark.parametrize("name", ["renamed", "a?b", "%41", "a#b c", "100%"])
def test_files_follow_a_folder(results: Path, uri: str, tmp_path: Path, name: str) -> None:
    # MLflow remembers in a process where a run's files are, and would write them there again
    shutil.rmtree(Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / NAME, ignore_errors=True)
    folder = Path(shutil.copytree(results, tmp_path / name))
    uri, workspace = tracking_uri(None, folder), Workspace(folder / NAME)
    assert sqlite_path(uri) == folder / "mlflow.db"
    spec, contents = in_folder(workspace).spec, read_ledger(workspace.ledger)
    (fault,) = audit_view(spec, contents, uri)
    assert fault.startswith("mlflow: the study's files are looked for in ") and "which is not there" in fault
    # reading finds them already
    held = in_store(uri, NAME, tmp_path / "read")
    assert texts(held.contents) == texts(contents)
    kept = sorted(path.relative_to(tmp_path / "read") for path in (tmp_path / "read").rglob("*.parquet"))
    assert kept == sorted(path.relative_to(workspace.root) for path in workspace.root.rglob("*.parquet")) != []
    if name in ("renamed", "a?b"):
        replay(spec, workspace.root, contents, uri, Summary(), done=True)
        assert inside(folder / "mlartifacts", files_of(uri)) and list(audit_view(spec, contents, uri)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "read"])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    yield from mounted(tmp_path / "disk", 64)


def test_what_cannot_be_written_can_be_read(results: Path, disk: Disk, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(results, disk.folder / "results"))
    before = sorted(path for path in folder.rglob("*"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
    uri, workspace = sqlite_uri(folder / "mlflow.db"), Workspace(folder / NAME)
    held = in_folder(workspace)
    assert workspace.holder() is None
    assert texts(in_store(uri, NAME, tmp_path / "read").contents) == texts(held.contents)
    assert all("which is not there" in fault for fault in audit_view(held.spec, held.contents, uri))
    compared = fmm_study("compare", str(workspace.root), f"{uri}#{NAME}")
    assert compared.returncode == 0, compared.stderr
    with pytest.raises(UserError, match="Read-only file system"):
        workspace.locked().__enter__()
    shown = fmm_study("export", NAME, "--from-mlflow", uri, "--storage", str(folder), "--table", "trials")
    assert shown.returncode == 2 and "Read-only file system" in shown.stderr and shown.stderr.count("\n") == 1
    done = fmm_study("export", NAME, "--from-mlflow", uri, "--storage", str(tmp_path), "--table", "trials")
    assert done.returncode == 0, done.stderr
    assert sorted(path for path in folder.rglob("*")) == before


def test_a_store_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    made: dict[str, Any] = {
        "text": lambda path: path.write_text("no database" * 99),
        "folder": lambda path: path.mkdir(),
        "fifo": os.mkfifo,
    }
    began = time.monotonic()
    for name, make in made.items():
        make(tmp_path / name)
        with pytest.raises(UserError, match="does not answer as it should") as caught:
            in_store(sqlite_uri(tmp_path / name), NAME)
        assert "\n" not in str(caught.value) and "it is no SQLite database" in str(caught.value)
    # SQLite takes it for an empty database
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="holds no study 'moved'"):
        in_store(sqlite_uri(tmp_path / "empty"), NAME)
    assert time.monotonic() - began < 10  # MLflow itself tries for a minute
