"""``fmm-study ui``: a view that is behind is written before it is shown, one that was written to its end is shown first."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from study.commands import ui as module
from study.errors import UserError
from study.results.ledger import Ledger
from study.results.workspace import Workspace

COMPARING, SHOWN, WHOLE = "comparing the view", "cells compared: http://server", "the view holds what the ledger holds"


@pytest.fixture
def shown(uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What ``ui`` prints of a study until Ctrl-C, of a server that is none."""

    @contextlib.contextmanager
    def serving(*_: Any, **__: Any) -> Iterator[Callable[[], str]]:
        yield lambda: "http://server"

    monkeypatch.setattr(module, "serving", serving)
    monkeypatch.setattr(module, "_wait", lambda: None)

    def run(spec: Any, workspace: Workspace) -> list[str]:
        module.ui(spec, workspace, tracking=uri, host="127.0.0.1", port=0, browse=False)
        return capsys.readouterr().out.splitlines()

    return run


def test_what_is_whole_is_shown_before_it_is_compared(
    shown: Callable[..., list[str]], uri: str, tmp_path: Path, spec_of: Any, config_of: Any, record_of: Any
) -> None:
    spec, workspace = spec_of(name="shown"), Workspace(tmp_path / "shown")
    workspace.freeze(spec)
    with pytest.raises(UserError, match="holds no results"):
        shown(spec, workspace)

    def places(*expected: str) -> list[int]:
        lines = shown(spec, workspace)
        return [next((i for i, line in enumerate(lines) if line.startswith(part)), -1) for part in expected]

    with Ledger(workspace.ledger) as ledger:
        ledger.append(record_of(config_of(seed=1), cell="fake/d8/add", phase="confirm"))
        comparing, address, whole = places(COMPARING, SHOWN, WHOLE)
        assert 0 == comparing < address and whole == -1
        address, optuna, comparing, whole = places(SHOWN, "searches, for optuna-dashboard", COMPARING, WHOLE)
        assert 0 == address < optuna < comparing < whole
        ledger.append(record_of(config_of(seed=2), cell="fake/d8/add", phase="confirm", block=1, replicate=1))
        comparing, address = places(COMPARING, SHOWN)
        assert 0 == comparing < address
    # a run that somebody removed is written again, though the view is shown first
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("shown").experiment_id
    client.delete_run(client.search_runs([experiment], "tags.block = '1'")[0].info.run_id)
    address, comparing = places(SHOWN, COMPARING)
    assert 0 == address < comparing and len(client.search_runs([experiment], "tags.phase = 'confirm'")) == 2
