"""The snippets of ``docs/notebook.md`` are run as they stand there, one after another, in an empty folder."""

import math
import re
from pathlib import Path

import pytest

import fmm_study
import study
from study import interface
from study.results.ledger import read_ledger

PAGE = (Path(__file__).parents[2] / "docs/notebook.md").read_text()


def test_every_snippet_runs_and_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # the report's figures take seconds; the snippets draw one of their own
    monkeypatch.setattr("analysis.figures.build.build_figures", lambda *_, **__: {})
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    held: dict[str, object] = {"__name__": "__main__"}
    told = []
    for snippet in snippets:
        exec(compile(snippet, "notebook.md", "exec"), held)
        told.append(capsys.readouterr().out)
    # a cell that is run again
    exec(compile(next(text for text in snippets if "MERGES.register" in text), "notebook.md", "exec"), held)
    planned, trials, asked, found = (held[name] for name in ("planned", "trials", "asked", "found"))
    assert f"\n{planned.num_trainings} ['digits/d8/add', " in told[0] and planned.num_trainings == 54
    assert len(trials) == 54 and "digits/d8/mul" in told[1]
    assert {row["role"] for row in asked.effects.to_pylist()} == {"exploratory"}
    assert Path("asked.png").stat().st_size > 10_000
    # the new cell's trainings, and no others
    assert len(read_ledger(Path("results/first/ledger")).replicates) == 72
    assert "continuing: 54 replicates are in the ledger" in told[4]
    assert math.isfinite(found["noise_stability"]["noise_16_flip_rate"].value)
    assert not Path("results/mlflow.db").exists()


def test_the_page_names_what_there_is() -> None:
    table = PAGE.partition("## What there is")[2]
    named = set(re.findall(r"`(\w+)(?:\(|`)", table.replace("`Study.", "`").replace("`.", "`"))) - {
        "fmm_study",
        "study",
    }
    there = set(fmm_study.__all__) | {name for name in vars(fmm_study.Study) if not name.startswith("_")}
    assert named - {"import"} <= there and set(fmm_study.__all__) - {"Plan", "Spec", "Study"} <= named
    assert sorted(study.OFFERED) == sorted(interface.__all__)
    assert all(getattr(study, name) is getattr(fmm_study, name) for name in study.OFFERED)
