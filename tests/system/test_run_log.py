"""What a run tells and keeps: ``run.log``, ``--quiet`` and ``--verbose``, progress without a terminal, its end noted."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import fmm_study
from driving import FAKE, write_spec
from rich.console import Console

from study.planning.plan import make_plan
from study.printing import live
from study.printing.live import LiveView
from study.printing.log import RunLog
from study.results.ledger import Contents
from study.results.provenance import PROVENANCE
from study.results.sessions import is_end, read_sessions

SMALL = FAKE | {"nuisance": "{}", "budget": "{search_trials: 0, startup_trials: 0}", "measure": "{}"}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.report.page.build_report", lambda *_: None)


def test_a_run_is_kept_line_by_line_and_says_as_much_as_it_is_asked_to(tmp_path: Path, undrawn: None) -> None:
    spec = str(write_spec(tmp_path / "kill.yaml", **SMALL))

    def run(*options: str) -> tuple[str, str]:
        done = fmm_study("run", spec, "--storage", str(tmp_path / options[0]), "--in-process", *options)
        assert done.returncode == 0
        return done.stdout, done.stderr

    lines = {f"fake/d8/{merge} block {block}, confirm 0: " for merge in ("add", "mul") for block in (0, 1)}
    shown, kept = run("--verbose")[0], (tmp_path / "--verbose/kill/run.log").read_text()
    assert all(line in shown and line in kept for line in lines) and "effects" in shown
    out, err = run("--quiet")
    assert out == "" and err.splitlines() == [
        "warning: no A/A control (control: {arm: {merge: add_alias}, reference: {merge: add}})"
    ]
    kept = (tmp_path / "--quiet/kill/run.log").read_text()
    assert all(line in kept for line in lines) and kept.splitlines()[-1].endswith("the run ends")
    refused = fmm_study("run", spec, "--quiet", "--verbose")
    assert refused.returncode == 2 and "exclude each other" in refused.stderr


def test_what_ends_a_run_is_kept_and_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    log = RunLog(tmp_path / "study", console, quiet=True)
    log.tell("before there is a folder")
    (tmp_path / "study").mkdir()
    with pytest.raises(KeyboardInterrupt), log.run():
        raise KeyboardInterrupt
    kept = (tmp_path / "study/run.log").read_text().splitlines()
    assert kept[0].endswith("before there is a folder") and kept[-1].endswith("ended by KeyboardInterrupt")
    (tmp_path / "other/run.log").mkdir(parents=True)
    RunLog(tmp_path / "other", console).tell("told")
    assert console.file.getvalue() == "told\n"  # type: ignore[attr-defined]


def test_warnings_are_heard_in_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunLog(tmp_path, Console(quiet=True), quiet=True).warn("no room")
    assert capsys.readouterr() == ("", "warning: no room\n")


def test_a_pipe_gets_a_line_when_a_training_ended_and_else_seldom(
    spec_of: Any, config_of: Any, record_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(live, "TICK_SECONDS", 0.01)
    console, plan = Console(file=io.StringIO(), width=200), make_plan(spec_of())
    lines: list[int] = []
    with LiveView(plan, Contents(), console) as view:
        time.sleep(0.1)
        lines.append(console.file.getvalue().count("\n"))  # type: ignore[attr-defined]
        view.tell(record_of(config_of(), cell=plan.cells[0].name))
        until = time.monotonic() + 10
        while console.file.getvalue().count("\n") == lines[0] and time.monotonic() < until:  # type: ignore[attr-defined]
            time.sleep(0.01)
        lines.append(console.file.getvalue().count("\n"))  # type: ignore[attr-defined]
        monkeypatch.setattr(live, "QUIET_SECONDS", 0.0)
        while console.file.getvalue().count("\n") == lines[1] and time.monotonic() < until:  # type: ignore[attr-defined]
            time.sleep(0.01)
    assert lines == [0, 1] and time.monotonic() < until
    assert "search 1/12" in console.file.getvalue()  # type: ignore[attr-defined]


def test_status_and_audit_as_json_and_a_plan_of_fewer_blocks(tmp_path: Path, undrawn: None) -> None:
    spec = str(write_spec(tmp_path / "kill.yaml", **SMALL))
    where = ("--storage", str(tmp_path))
    assert fmm_study("run", spec, *where, "--in-process").returncode == 0
    found = json.loads(fmm_study("status", spec, *where, "--json").stdout)
    assert (found["done"], found["waiting"], found["further"], found["driver"]) == (4, 0, 0, None)
    assert found["cells"][0]["confirmed"] == {"done": 2, "planned": 2}
    fewer = fmm_study("status", spec, *where, "--set", "blocks=1")
    assert "2 done (2 more that this plan does not ask for), 0 waiting" in fewer.stdout and "1/1" in fewer.stdout
    assert json.loads(fmm_study("audit", spec, *where, "--json").stdout)["faults"] == []
    planned = json.loads(fmm_study("plan", spec, "--json").stdout)
    assert planned["trainings"] == {"search": 0, "confirm": 4, "shortened": 0} and len(planned["cells"]) == 2
    # the end that a run has noted holds for as many records as there were
    root = tmp_path / "kill"
    contents = Contents(replicates=dict.fromkeys("abcd"))  # type: ignore[arg-type]
    assert is_end(read_sessions(root), contents) and not is_end(read_sessions(root), Contents())
    (root / PROVENANCE).unlink()
    assert "4 done, 0 waiting" in fmm_study("status", spec, *where).stdout  # worked out


def test_a_study_is_opened_by_its_name_under_the_storage_and_hints_are_commands(tmp_path: Path, undrawn: None) -> None:
    spec = str(write_spec(tmp_path / "kill.yaml", **SMALL))
    where = ("--storage", str(tmp_path / "my results"))
    printed = fmm_study("run", spec, *where, "--in-process").stdout
    assert f"(fmm-study ui '{tmp_path}/my results/kill')" in printed
    for command in ("status", "plan", "cost", "audit", "export"):
        assert fmm_study(command, "kill", *where).returncode == 0, command
    refused = fmm_study("status", "kil", *where)
    assert refused.returncode == 2 and "(did you mean 'kill'?)" in refused.stderr
