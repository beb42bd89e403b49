"""Driver and workers run the same code: a worker that has another says so, and stands where the driver stood."""

import contextlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from study.cluster import code
from study.cluster.code import away, source_digest, surroundings, take_up
from study.cluster.group import Group
from study.errors import UserError


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd())


def test_a_worker_goes_to_the_drivers_folder_and_imports_nothing_from_it(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        given = surroundings([])
    with away():
        assert str(Path.cwd()) == os.path.realpath(sysconfig.get_path("stdlib"))
        take_up(given)
        assert Path.cwd() == tmp_path and str(tmp_path) not in sys.path
    other = tmp_path / "other"
    other.mkdir()
    with contextlib.chdir(other):
        # on a cluster: where ``ray start`` ran
        take_up(given)
        assert Path.cwd() == other


def test_plugins_are_sought_in_the_drivers_folder_last(tmp_path: Path) -> None:
    (tmp_path / "taken_up_one.py").write_text("")
    (tmp_path / "json.py").write_text("1 / 0")
    with contextlib.chdir(tmp_path):
        take_up(surroundings(["taken_up_one"]))
    assert sys.path[-1] == str(tmp_path) and "taken_up_one" in sys.modules


def test_the_digest_is_of_all_our_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)
    digests = [source_digest()]
    for name in (*code.PACKAGES, "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        digests.append(source_digest())
    assert len(set(digests)) == 4 and digests[-1] == digests[-2]


def test_a_worker_with_other_code_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = surroundings([]) | {"root": "/here/fmm-study", "digest": "0123456789abcdef"}
    with pytest.raises(UserError) as caught:
        take_up(given)
    line = str(caught.value)
    assert "/here/fmm-study (digest 0123456789abcdef)" in line and str(Path(code.__file__).parents[2]) in line
    worker: Any = Group.__new__(Group)
    worker.setup({"surroundings": given})
    assert worker.step() == {"fault": f"workers are lost before they begin: {line}", "done": True}
