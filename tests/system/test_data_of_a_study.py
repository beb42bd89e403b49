"""A study and its data: read where they are gone, stopped where they changed, continued where they lie elsewhere."""

import shutil
import sys
from pathlib import Path

import pytest
from command_line import fmm_study
from picture_files import write_images
from serial import run_serially

from study.atomic import read_json
from study.data import load_dataset
from study.errors import UserError

SPEC = """
name: own
plugins: [own_statistic]
factors: {merge: [add, mul], depth: [8]}
fixed: {dataset: image_folder_32, width: 2, epochs: 1, batch_size: 16}
nuisance: {lr: {low: 0.01, high: 0.1, log: true, default: 0.05}}
blocks: 2
budget: {search_trials: 1, startup_trials: 1}
measure: {statistics: {darkness: {}}}
"""
PLUGIN = """
from dataclasses import dataclass
from study.registry import STATISTICS
from study.smoothness.estimate import mean

@dataclass(frozen=True)
class Settings:
    pass

@STATISTICS.register("darkness", formula="x", source="here", settings=Settings, names=lambda _: ["darkness"])
def darkness(settings, context):
    return {"darkness": mean(1 - context.split("test")[0].mean((1, 2, 3)))}
"""


def write_data(root):
    for i, name in enumerate("ab"):
        write_images(root / "image_folder" / "train" / name, 30, size=(32, 32), seed=i)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study of images of one's own, with its data and its plug-in beside it."""
    root = tmp_path_factory.mktemp("own")
    write_data(root / "data")
    (root / "own.yaml").write_text(SPEC)
    (root / "own_statistic.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        use(patch, root)
        assert run_serially(root / "own.yaml", root / "results", report=False)
    return root


def use(patch, root):
    patch.chdir(root)
    patch.syspath_prepend(str(root))
    patch.setenv("FMM_STUDY_DATA", str(root / "data"))
    patch.setenv("FMM_STUDY_PLUGINS", "own_statistic")
    load_dataset.cache_clear()


@pytest.fixture
def root(finished, tmp_path, monkeypatch):
    """A copy of it."""
    root = Path(shutil.copytree(finished, tmp_path / "own"))
    use(monkeypatch, root)
    yield root
    (finished / "own_statistic.py").write_text(PLUGIN)
    load_dataset.cache_clear()


def longer(root, blocks, **options):
    (root / "own.yaml").write_text(SPEC.replace("blocks: 2", f"blocks: {blocks}"))
    load_dataset.cache_clear()
    return run_serially(root / "own.yaml", root / "results", report=False, **options)


READING = {
    "status": ("status", "own.yaml"),
    "audit": ("audit", "own.yaml"),
    "report": ("report", "own.yaml"),
    "export": ("export", "own.yaml"),
    "compare": ("compare", "results/own", "results/own"),
}


@pytest.mark.parametrize("command", READING)
def test_what_is_there_is_read_without_the_data(root, monkeypatch, command):
    shutil.rmtree(root / "data")

    def load(name):
        raise AssertionError(f"{name} was loaded")

    for place in ("study.planning.plan.load_dataset", "study.data.dataset.load_dataset"):
        monkeypatch.setattr(place, load)
    if command != "audit":  # which asks the plug-in for keys
        monkeypatch.delenv("FMM_STUDY_PLUGINS")
    done = fmm_study(*READING[command])
    assert done.returncode == 0, done.stderr or done.stdout
    if command == "status":
        assert "8 done, 0 waiting" in done.stdout


def test_a_finished_study_is_finished_where_its_data_is_gone(root):
    shutil.rmtree(root / "data")
    assert run_serially(root / "own.yaml", root / "results", report=False)
    with pytest.raises(UserError, match="dataset image_folder_32 is not here"):
        longer(root, 3)


def test_a_specification_that_grew_is_read_without_the_data_too(root):
    shutil.rmtree(root / "data")
    (root / "own.yaml").write_text(SPEC.replace("blocks: 2", "blocks: 3"))
    assert "8 done, 4 waiting" in fmm_study("status", "own.yaml").stdout
    done = fmm_study("status", "own.yaml", "--set", "fixed.network=none_such")
    assert done.returncode == 2 and "unknown network 'none_such'" in done.stderr


def changed(root, how):
    folder = root / "data" / "image_folder" / "train" / "a"
    if how == "an image more":
        shutil.copy(folder / "image_0000.png", folder / "more.png")
    elif how == "an image other":
        shutil.copy(folder / "image_0000.png", folder / "image_0001.png")
    elif how == "a class more":
        write_images(folder.parent / "c", 30, size=(32, 32))
    else:
        # where the module was imported from
        Path(sys.modules["own_statistic"].__file__).write_text(PLUGIN + "\n# changed\n")


CHANGES = {
    "an image more": r"dataset image_folder_32 in .*/data is not what the study was run with: num_pool was 48, is 49;",
    "an image other": r"dataset image_folder_32 in .*/data is not what .* run with: digest was [0-9a-f]{16}, is [0-9a-f]{16};",
    "a class more": r"num_classes was 2, is 3;.* put it back, or take another name or --storage .*--accept-changes",
    "a plug-in other": r"plug-in module own_statistic \(statistic darkness\) is not what .* was run with: digest was",
}


@pytest.mark.parametrize("how", CHANGES)
def test_data_and_code_that_changed_stop_a_run_before_anything_trains(root, how):
    changed(root, how)
    ledger = [path.read_bytes() for path in sorted((root / "results/own/ledger").iterdir())]
    sessions = read_json(root / "results/own/provenance.json")
    with pytest.raises(UserError, match=CHANGES[how]) as caught:
        longer(root, 3)
    assert "\n" not in str(caught.value)
    assert [path.read_bytes() for path in sorted((root / "results/own/ledger").iterdir())] == ledger
    assert read_json(root / "results/own/provenance.json") == sessions
    assert fmm_study("status", "own.yaml").returncode == 0


def test_changes_are_accepted_once_and_told_ever_after(root):
    changed(root, "an image other")
    assert longer(root, 3, accept_changes=True)
    assert longer(root, 4)  # what was accepted needs no second word
    told, done = "(accepted in session 2 of 3)", fmm_study("audit", "own.yaml")
    assert done.returncode == 0 and "digest was" in done.stdout and told in done.stdout, done.stdout
    assert fmm_study("report", "own.yaml").returncode == 0
    assert told in (root / "results/own/report.html").read_text()
    changed(root, "an image more")
    with pytest.raises(UserError, match=r"num_pool was 48, is 49;.*--accept-changes"):
        longer(root, 5)


def test_the_same_data_at_another_place_is_the_same(root, monkeypatch):
    shutil.copytree(root / "data", root / "elsewhere", copy_function=shutil.copyfile)
    shutil.rmtree(root / "data")
    monkeypatch.setenv("FMM_STUDY_DATA", str(root / "elsewhere"))
    assert longer(root, 3)
