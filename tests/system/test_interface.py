"""The package in Python: what a specification may be, contrasts asked afterwards, levels registered in a notebook."""

import json
import multiprocessing.spawn
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from driving import FAKE, write_spec
from serial import run_serially
from torch import nn

import fmm_study
import study
from analysis.figures.build import _no_main
from study.commands.executors import OnRay
from study.commands.start import RunOptions
from study.errors import UserError
from study.plugins import load_network, plugin_sources, refuse_foreign, registered_by
from study.registry import MERGES, NETWORKS
from study.results.provenance import _changes

PARTS: dict[str, Any] = {
    "name": "kill", "factors": {"merge": ("add", "mul"), "depth": [8]},
    "fixed": {"dataset": "fake", "width": 4, "epochs": 2, "batch_size": 16},
    "nuisance": {"weight_decay": {"low": 0.0, "high": 0.1, "default": 0.0}, "lr": {"low": 0.01, "high": 1, "default": 0.1}},
    "blocks": 2, "budget": {"search_trials": 0, "startup_trials": 0},
}  # fmt: skip
NO_SEARCH = FAKE | {"nuisance": "{}", "budget": "{search_trials: 0, startup_trials: 0}", "measure": "{}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three cells, whose only contrast is that of mul and add."""
    root = tmp_path_factory.mktemp("asked")
    spec = write_spec(root / "kill.yaml", **NO_SEARCH | {"factors": "{merge: [add, sig_bn, mul], depth: [8]}"})
    assert run_serially(spec, root, report=False, view=False)
    return root


def test_a_mapping_is_read_as_yaml_would_give_it(tmp_path: Path) -> None:
    path = tmp_path / "kill.yaml"
    path.write_text(json.dumps(PARTS))
    spec = fmm_study.load_spec(PARTS)
    assert spec == fmm_study.load_spec(path) == fmm_study.load_spec(str(path)) == fmm_study.load_spec(spec)
    assert list(spec.nuisance) == ["lr", "weight_decay"] and isinstance(PARTS["factors"]["merge"], tuple)
    assert fmm_study.load_spec(spec, "blocks=3").blocks == 3 and spec.blocks == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("digit", "unknown preset 'digit' (did you mean 'digits'?)"),
        ({"name": "x"}, "specification: factors"),
        (PARTS | {"fixd": 1}, "specification: unknown key 'fixd' = 1 (did you mean 'fixed'?)"),
        (PARTS | {"blocks": object()}, "specification: blocks"),
    ],
)
def test_what_is_no_specification_is_one_line(given: Any, told: str) -> None:
    with pytest.raises(fmm_study.SpecError) as caught:
        fmm_study.load_spec(given)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


def test_a_contrast_asked_afterwards_is_that_which_yaml_would_have_named(folder: Path) -> None:
    asked = fmm_study.open_study(folder / "kill").contrast({"merge": "sig_bn"}, {"merge": "add"})
    named = fmm_study.load_spec(folder / "kill.yaml", "contrasts=[{arm: {merge: sig_bn}, reference: {merge: add}}]")
    assert fmm_study.run(named, folder).effects.to_pylist() == asked.effects.to_pylist()
    assert {(row["arm"], row["claim"]) for row in asked.effects.to_pylist()} == {("merge=sig_bn", "")}
    assert asked.trials.num_rows == 6 and asked.figure().axes


@pytest.mark.parametrize(
    ("arm", "reference", "told"),
    [
        (
            {"merge": "sig"},
            {"merge": "add"},
            "contrast: no cell of this study has merge 'sig' (did you mean 'sig_bn'?)",
        ),
        ({"mergd": "mul"}, {"mergd": "add"}, "contrast: a contrast names 'mergd', which is no factor of this study"),
        ({"merge": "mul"}, {"depth": 8}, "contrast: contrasts.0: arm and reference must name the same factors"),
    ],
)
def test_a_contrast_that_the_study_cannot_show(folder: Path, arm: Any, reference: Any, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        fmm_study.open_study("kill", folder).contrast(arm, reference)
    assert isinstance(caught.value, (fmm_study.UserError, fmm_study.SpecError)) and str(caught.value).startswith(told)


def test_names_that_are_none(folder: Path) -> None:
    results = fmm_study.open_study(folder / "kill")
    with pytest.raises(UserError, match=r"unknown table 'trial' \(did you mean 'trials'\?\)"):
        results.table("trial")
    with pytest.raises(UserError, match=r"unknown figure 'effect' \(did you mean 'effects'\?\)"):
        results.figure("effect")
    with pytest.raises(UserError, match=r"'kil' is no folder of a study.*did you mean 'kill'"):
        fmm_study.open_study("kil", folder)
    with pytest.raises(AttributeError, match="has no attribute 'open_studies'"):
        _ = study.open_studies
    assert "kill: 6 trainings" in repr(results) and {"open_study", "run"} <= set(dir(study))


@pytest.fixture
def register() -> Callable[[str], None]:
    """Registers a merge operator as a cell of a notebook does that holds a class of this body."""

    def cell(body: str, module: str = "__main__") -> None:
        made = type("Mine", (nn.Module,), {"__module__": module, "__doc__": body})
        MERGES.register("mine", formula="x", source="here", extra_params="0")(made)

    return cell


def test_a_cell_that_is_run_again_replaces_what_it_registered(register: Callable[..., None]) -> None:
    register("first")
    register("second")
    assert MERGES["mine"].build.__doc__ == "second"
    with pytest.raises(ValueError, match="merge 'mine' is registered twice"):
        register("third", module="a_module")


def test_other_code_under_the_name_of_a_notebooks_level_is_seen(
    register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = []
    for text in ("class Mine: 1", "class Mine: 1", "class Mine: 2"):
        register(text)
        monkeypatch.setattr("inspect.getsource", lambda build: build.__doc__)
        sessions.append({"plugins": plugin_sources([])})
    assert not _changes(sessions[:1], sessions[1])
    (told,) = _changes(sessions[:2], sessions[2])
    assert told.startswith("plug-in module __main__: mine (merge mine) is not what the study was run with: digest was")


def test_a_network_of_a_notebook(register: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own functions alone, in their latest version; what it imported is not offered to a specification."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def own(variant: str) -> nn.Module:
        """A network."""
        return nn.Identity()

    own.__module__ = "__main__"
    for name, found in {"net": own, "rmtree": shutil.rmtree}.items():
        setattr(main, name, found)
    refuse_foreign(["__main__:net"])
    load_network("__main__:net")
    assert NETWORKS["__main__:net"].build is own and registered_by("__main__") == ["network __main__:net"]
    main.net = FunctionType(own.__code__, {"__name__": "__main__"}, "net")  # type: ignore[attr-defined]
    load_network("__main__:net")
    assert NETWORKS["__main__:net"].build is main.net
    with pytest.raises(UserError, match="module '__main__' has no function 'rmtree'"):
        load_network("__main__:rmtree")


def test_on_ray_a_notebooks_level_is_refused(register: Callable[..., None]) -> None:
    register("first")
    feed: Any = None
    with pytest.raises(UserError, match="merge mine: registered by this notebook or script, which workers do not have"):
        OnRay(RunOptions(), None).run(feed)


def test_processes_that_draw_leave_a_users_script_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert multiprocessing.spawn.get_preparation_data("x")["init_main_from_path"] == str(tmp_path / "script.py")
    with _no_main():
        assert not {"init_main_from_path", "init_main_from_name"} & set(multiprocessing.spawn.get_preparation_data("x"))
    assert sys.modules["__main__"].__file__ == str(tmp_path / "script.py")
