"""The examples: each is short, runs as its page says, and names a claim, a control and something of one's own."""

import os
import runpy
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import fmm_study

from search_spaces import load_spec
from study.planning.plan import make_plan

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
# enough to see that it runs; what it finds stands on the page
SMALL = ("blocks=1", "budget.search_trials=1", "budget.startup_trials=1", "fixed.epochs=1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, entered."""
    where = Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))
    monkeypatch.chdir(where)
    monkeypatch.syspath_prepend(str(where))
    monkeypatch.setattr("analysis.figures.build.build_figures", lambda *_, **__: {})
    monkeypatch.setenv("FMM_STUDY_PLUGINS", ",".join(NAMES))
    return where


def test_there_is_one_of_each_kind_and_each_is_short() -> None:
    assert NAMES == ["merge_operator", "optimisers", "own_network"]
    page = (EXAMPLES / "README.md").read_text()
    for name in NAMES:
        assert len((EXAMPLES / f"{name}.yaml").read_text().splitlines()) < 60
        assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60
        assert f"[{name}.yaml]({name}.yaml)" in page and f"[{name}.py]({name}.py)" in page


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "optimisers":
        monkeypatch.setattr(sys, "argv", ["optimisers.py", *SMALL])
        runpy.run_path("optimisers.py", run_name="__main__")
        assert "Nesterov's momentum, asked afterwards: " in capsys.readouterr().out
        assert Path("nesterov.png").stat().st_size > 10_000
    else:
        done = fmm_study("run", f"{name}.yaml", "--in-process", *(part for text in SMALL for part in ("--set", text)))
        assert done.returncode == 0, done.stderr
    trials = pq.read_table(folder / "results" / name / "tables/trials.parquet").to_pylist()
    cells = len(make_plan(load_spec(f"{name}.yaml")).cells)
    assert len(trials) == 2 * cells and not {"failed", "diverged"} & {row["state"] for row in trials}


@pytest.mark.parametrize("name", NAMES)
def test_as_it_stands_it_gives_a_verdict(name: str) -> None:
    """Its claims can be decided, and it has an A/A control."""
    done = fmm_study("plan", f"{name}.yaml")
    assert done.returncode == 0, done.stderr
    assert "no A/A control" not in done.stdout and load_spec(f"{name}.yaml").claims


def test_merge_operator_keeps_the_contract(folder: Path) -> None:
    from study.plugins import check_merge, load_plugins

    load_plugins(["merge_operator"], os.fspath(folder))
    check_merge("learned_product")
