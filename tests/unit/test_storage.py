"""``--storage``: what is mistyped, no folder, or not there is one line, and nothing is made."""

import os
from pathlib import Path

import pytest
from command_line import fmm_study

from study.errors import UserError
from study.results.workspace import check_folder, storage_folder

LONG = "x" * 300
# what is given -> what is said
NO_FOLDER = {
    "S3://bucket/results": "a folder is needed",
    "Gs://bucket": "a folder is needed",
    "resluts": "there is no folder resluts (did you mean 'results'?)",
    "results/deeper": "there is no folder results/deeper; it holds no results; first: fmm-study run digits",
    "nowhere/deeper": "there is no folder nowhere; it holds no results",
    "loop": "results folder loop: Too many levels of symbolic links",
    "file": "results folder file: Not a directory",
    "file/deeper": "results folder file/deeper: Not a directory",
    LONG: "File name too long",
    "~nobody-of-this-name/results": "there is no such home",
}
READING = (["status", "digits"], ["report", "digits"], ["export", "digits"], ["audit", "digits"], ["ui", "digits"])


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("storage", NO_FOLDER)
def test_reading_says_it_in_one_line_and_makes_nothing(places: Path, storage: str) -> None:
    for command in READING:
        done = fmm_study(*command, "--storage", storage)
        assert done.returncode == 2 and NO_FOLDER[storage] in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and not done.stdout and len(done.stderr) < 400
    assert sorted(path.name for path in places.iterdir()) == ["file", "loop", "results"]
    assert not list((places / "results").iterdir())


@pytest.mark.parametrize("storage", [name for name, told in NO_FOLDER.items() if "there is no folder" not in told])
def test_so_does_a_run_before_it_starts_anything(places: Path, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.commands.start.start", lambda *_: pytest.fail("it began"))
    for command in (["run", "digits"], ["retry", "digits", "--failed"], ["compare", "a", "b"]):
        done = fmm_study(*command, "--storage", storage)
        if command[0] != "compare" or storage == LONG:
            assert NO_FOLDER[storage] in done.stderr, done.stderr
        assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert sorted(path.name for path in places.iterdir()) == ["file", "loop", "results"]


def test_a_home_is_meant_by_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage_folder(Path("~/results")) == tmp_path / "results"


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # root, as which tests may run, may read any folder
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="Permission denied"):
        check_folder(tmp_path)


def test_a_study_that_was_never_run_is_looked_at_without_making_anything(places: Path) -> None:
    done = fmm_study("status", "digits")
    assert done.returncode == 0 and "0 done" in done.stdout
    assert not list((places / "results").iterdir())


def test_doctor_names_a_storage_that_is_no_folder(places: Path) -> None:
    from study.checks.doctor import Ailment, _storage

    for storage in ("file", "file/deeper", "loop", LONG):
        with pytest.raises(Ailment, match="results folder"):
            _storage(Path(storage))
    assert "free" in _storage(Path("results/deeper"))
