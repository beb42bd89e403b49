"""What ``status`` and ``run`` say of failures and of what is left: causes whole, the command that helps, an end to waiting."""

import re
from pathlib import Path
from typing import Any

import pytest
from command_line import fmm_study
from driving import FAKE, write_spec
from made_up_worker import Worker
from rich.console import Console
from serial import run_serially

from study.errors import UserError
from study.planning.agenda import Agenda
from study.planning.layout import Plan
from study.planning.plan import make_plan
from study.printing.describe import start_lines
from study.printing.status import print_status
from study.results.ledger import Contents
from study.results.workspace import Workspace

TRACEBACK = """Traceback (most recent call last):
  File "/a/loop.py", line 7, in train
    loss.backward()
    ^^^^^^^^^^^^^^^
  [Previous line repeated 9 more times]
"""
REASONS = {
    "one line": (f"{TRACEBACK}RuntimeError: no such thing", "RuntimeError: no such thing"),
    "several lines": (
        f"{TRACEBACK}RuntimeError: Error(s) in loading state_dict for Net:\n\tsize mismatch for fc\n  of weights: 3\n\n\t(4)",
        "RuntimeError: Error(s) in loading state_dict for Net: size mismatch for fc of weights: 3 (4)",
    ),
    "a second one of the first": (
        f"{TRACEBACK}KeyError: 1\n\nDuring handling of the above exception, another exception occurred:\n\n{TRACEBACK}x.Y: 2",
        "x.Y: 2",
    ),
    "no traceback": ("dataset svhn is not here: put it there", "dataset svhn is not here: put it there"),
    "longer than a line": ("why " * 100 + "[bold]x[/bold]", "why " * 100 + "[bold]x[/bold]"),
    "none": ("", "no reason is known"),
}


def shown(capsys: pytest.CaptureFixture[str], plan: Plan, contents: Contents, folder: Path) -> str:
    agenda = Agenda(plan, contents)
    print_status(plan, contents, Workspace(folder), Console(width=100), ended=agenda.done)
    return capsys.readouterr().out


@pytest.mark.parametrize(("reason", "told"), REASONS.values(), ids=REASONS)
def test_a_cause_is_shown_whole(reason, told, spec_of, config_of, record_of, measured_of, capsys, tmp_path) -> None:
    plan, contents = make_plan(spec_of()), Contents()
    for seed in (1, 2):
        contents.add(record_of(config_of(seed=seed), state="failed", reason=reason, cell=plan.cells[0].name))
    contents.add(record_of(config_of(seed=3), cell=plan.cells[0].name))
    contents.add(measured_of(config_of(seed=3).trial_key, "m", error=f"{TRACEBACK}ValueError: no value"))
    lines = shown(capsys, plan, contents, tmp_path).splitlines()
    assert f"failed (2): {told}" in lines and "not measured (1): path: ValueError: no value" in lines
    assert lines[-1] == f"to run them again: fmm-study retry {tmp_path} --failed"


TWO = {"lr": {"choices": [0.1, 0.2]}}
ENDED = {
    "a space of two points": {"nuisance": TWO},
    "one of a single point": {"nuisance": {"lr": {"choices": [0.1]}}},
    "joint, of two points a cell": {
        "nuisance": TWO,
        "budget": {"search_trials": 9, "startup_trials": 2},
        "joint": {
            "objectives": [{"name": name, "direction": "minimize"} for name in ("val/loss", "params")],
            "confirm": 3,
        },
        "blocks": 1,
    },
}


@pytest.mark.parametrize("changes", ENDED.values(), ids=ENDED)
def test_a_space_that_is_used_up_leaves_nothing_waiting(
    changes: dict[str, Any], spec_of, record_of, measured_of, capsys, tmp_path
) -> None:
    plan, contents = make_plan(spec_of(**changes)), Contents()
    points = len(plan.spec.nuisance["lr"].choices) * (len(plan.cells) if plan.spec.joint else 1)
    asked = plan.spec.budget.search_trials
    assert plan.trials_a_search == points < asked
    told = f"each search ends after {points} of budget.search_trials = {asked}: its space has no more points"
    assert told in start_lines(plan, contents, Workspace(tmp_path))
    assert re.search(r"0 done, (at most )?[1-9]\d* waiting", shown(capsys, plan, contents, tmp_path))
    agenda, worker = Agenda(plan, contents), Worker(contents.add, record_of, measured_of, None, ())
    while group := agenda.next_group():
        for task in group:
            worker.run(task)
        agenda.group_ended(group)
    searched = [r for r in contents.replicates.values() if r["phase"] == "search"]
    assert agenda.done and len(searched) == plan.num_search
    status = shown(capsys, plan, contents, tmp_path)
    assert f"{len(contents.replicates)} done, 0 waiting" in status and told in status


def test_a_run_whose_trainings_all_fail_says_why_once(tmp_path: Path, monkeypatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no kernel\nfor this device")

    spec = write_spec(
        tmp_path / "kill.yaml",
        **FAKE,
        name="failing",
        blocks=1,
        budget="{search_trials: 0, startup_trials: 0}",
        contrasts="[]",
    )
    with monkeypatch.context() as patched:
        patched.setattr("study.worker.group.train", broken)
        with pytest.raises(UserError) as caught:
            run_serially(spec, tmp_path, report=False, view=False)
    cause = "RuntimeError: no kernel for this device"
    assert (
        str(caught.value)
        == f"all 2 trainings failed: {cause}; when that is mended: fmm-study retry {tmp_path}/failing --failed"
    )
    # and again: it is not done
    with pytest.raises(UserError, match="all 2 trainings failed"):
        run_serially(spec, tmp_path, report=False, view=False)
    status = fmm_study("status", str(spec), "--storage", str(tmp_path))
    assert f"failed (2): {cause}\n" in status.stdout and "2 done, 0 waiting" in status.stdout
