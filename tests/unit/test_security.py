"""A specification, a checkpoint or a ledger from others runs no code; addresses are shown without their passwords."""

import functools
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_secret import SECRET, SPEC

from search_spaces import SpecError, load_spec
from search_spaces.load import parse_spec
from study.checks import doctor
from study.commands import run as driver
from study.errors import UserError
from study.measuring.network import measure_checkpoint
from study.planning.plan import make_plan
from study.results.workspace import Workspace
from study.tracking.server import serving
from study.tracking.store import masked, without_credentials
from study.training import load_checkpoint


def test_doctor_and_addresses_show_no_password() -> None:
    for uri in (f"http://ann:{SECRET}@127.0.0.1:9", f"postgresql://ann:{SECRET}@db/mlflow?sslpassword={SECRET}"):
        finding = doctor._finding("tracking", functools.partial(doctor._tracking, uri))
        assert SECRET not in f"{finding.found}{finding.advice}" and "***@" in finding.found
        assert SECRET not in without_credentials(uri.partition("?")[0])
    for text in (
        f"http://a:b@{SECRET}@h",
        f"s3://b/k?X-Amz-Signature={SECRET}&x=1",
        f"http://h/?api_key={SECRET} there",
    ):
        assert SECRET not in masked(text), masked(text)


def test_a_stores_password_is_no_argument_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments are for all users of a machine to see."""
    import subprocess

    class Seen(Exception):
        pass

    def popen(command: list[str], *, env: dict[str, str], **_: Any) -> None:
        assert SECRET not in " ".join(command) and SECRET in env["MLFLOW_BACKEND_STORE_URI"]
        raise Seen

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Seen), serving(f"postgresql://ann:{SECRET}@db/mlflow", Path(), SECRET):
        pass


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_runs_no_code(zipped: bool, tmp_path: Path) -> None:
    """A real checkpoint with a payload: unpickled it goes off; loaded as we do, training starts afresh, measuring refuses."""
    folder, path = tmp_path / "gone off", tmp_path / "final.pt"
    torch.save({"model": {}, "config": Bomb(folder)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"final\.pt cannot be read as weights"):
        measure_checkpoint(path, {})
    assert load_checkpoint(path) is None and not path.exists()
    assert not folder.exists()
    (damaged,) = tmp_path.glob("final.damaged-*")
    torch.load(damaged, weights_only=False)
    assert folder.exists()


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.mkdir [gone]", "!!python/name:os.system", "!!python/module:os"]
)
def test_yaml_runs_no_code(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="could not determine a constructor"):
        parse_spec(f"name: {text}", "test")
    with pytest.raises(SpecError, match="could not determine a constructor"):
        load_spec("digits", [f"title={text}"])
    assert not list(tmp_path.iterdir())


NAMED = {"plugins: [theirs]": "theirs", "space: theirs:f": "theirs", "space: os:system": "os"}


@pytest.mark.parametrize("line", NAMED)
def test_a_specification_runs_no_module_that_its_user_has_not_named(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A specification and a module beside it, as an archive from someone else may hold."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "mine, other")
    Path("theirs.py").write_text("from pathlib import Path\nPath('gone').mkdir()\n\ndef f(trial, cell): return {}\n")
    Path("theirs.yaml").write_text(SPEC + line + "\n")
    with pytest.raises(UserError, match=f"the code of {NAMED[line]};.*export FMM_STUDY_PLUGINS={NAMED[line]}$"):
        make_plan(load_spec("theirs.yaml"))
    with pytest.raises(UserError, match="FMM_STUDY_PLUGINS"):
        driver.run(load_spec("theirs.yaml"), Workspace(tmp_path / "results/planted"))
    assert not Path("gone").exists() and "theirs" not in sys.modules
    if NAMED[line] == "theirs":
        monkeypatch.setenv("FMM_STUDY_PLUGINS", "mine, theirs")
        make_plan(load_spec("theirs.yaml"))
        assert Path("gone").exists()


def test_an_installed_plug_in_needs_no_word_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("FMM_STUDY_PLUGINS", raising=False)
    info = tmp_path / "installed-1.dist-info"
    info.mkdir()
    (tmp_path / "installed_one.py").write_text("")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fmm_study.plugins]\nmine = installed_one\n")
    monkeypatch.setattr("study.plugins.loading.site_folders", lambda: [str(tmp_path)])
    make_plan(parse_spec(SPEC + "plugins: [installed_one]\n", "test"))


def test_a_hand_over_of_a_worker_is_data(tmp_path: Path) -> None:
    """What the driver takes from the shared folder is JSON; a pickle there is a damaged hand-over."""
    from study.worker.group import outcomes

    folder = tmp_path / "checkpoints/key"
    folder.mkdir(parents=True)
    (folder / "outcome.json").write_bytes(pickle.dumps(Bomb(tmp_path / "gone"), protocol=0))
    assert list(outcomes(tmp_path)) == [("key", [])] and not (tmp_path / "gone").exists()


@pytest.mark.parametrize("address", ["s3://bucket/results", "gs://bucket", "https://host/results"])
def test_an_address_is_no_results_folder(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a filesystem that all hosts share"):
        Workspace(Path(address) / "digits")
    assert not list(tmp_path.iterdir())
    assert Workspace(Path("/mnt/s3:/digits")).ledger
