"""The command line as a user meets it: quick help, one clear line on a fault, nothing started."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import fmm_study

COMMANDS = (
    "plan",
    "run",
    "status",
    "report",
    "export",
    "compare",
    "ui",
    "audit",
    "retry",
    "measure",
    "behaviour",
    "levels",
    "doctor",
)


HEAVY = ("torch", "ray", "optuna", "pyarrow", "scipy", "mlflow")
HELP = f"""
import json, sys
from study.cli import main
for command in sys.argv[1:]:
    sys.argv = ["fmm-study", *command.split(), "--help"]
    try: main()
    except SystemExit as ended: assert not ended.code
    print(json.dumps({{"command": command, "heavy": sorted(set({HEAVY}) & set(sys.modules))}}))
"""


def test_help_needs_nothing_heavy() -> None:
    """Help imports neither torch nor ray nor optuna: that, not a stopwatch, is what keeps it under a second."""
    command = [sys.executable, "-c", HELP, "", *COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert told == [{"command": name, "heavy": []} for name in ("", *COMMANDS)]
    for name in ("", *COMMANDS):
        assert f"Usage: fmm-study {name}".rstrip() in done.stdout


BAD = {
    "unknown preset": (["plan", "digitz"], "unknown preset 'digitz' (did you mean 'digits'?)"),
    "unknown level": (["plan", "digits", "--set", "fixed.network=cifar_resnett"], "did you mean 'cifar_resnet'?"),
    "unknown level in a run": (
        ["run", "digits", "--set", "fixed.network=cifar_resnett"],
        "did you mean 'cifar_resnet'?",
    ),
    "unknown key": (["plan", "digits", "--set", "budget.search_trails=2"], "unknown key 'budget.search_trails'"),
    "unknown setting": (
        ["plan", "digits", "--set", "fixed.widht=8"],
        "unknown setting 'widht' (did you mean 'width'?)",
    ),
    "unknown statistic": (["plan", "digits", "--set", "measure.statistics.pth={}"], "unknown statistic 'pth'"),
    "no blocks": (["plan", "digits", "--set", "blocks=0"], "blocks: Input should be greater than or equal to 1, got 0"),
    "no equals sign": (["plan", "digits", "--set", "blocks"], "expected KEY=VALUE"),
    "nothing to export": (["export", "digits", "--storage", "nowhere"], "holds no results"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_2(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, expected = BAD[case]
    monkeypatch.chdir(tmp_path)
    done = fmm_study(*arguments)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_plan_tells_cells_trials_cost_and_power() -> None:
    done = fmm_study("plan", "digits")
    assert done.returncode == 0, done.stderr
    for expected in (
        "digits/d8/add/se.static",
        "13 cells x 12 blocks",
        "468 + 156 + 156 trainings",
        "expected:",
        "power: 12 pairs",
    ):
        assert expected in done.stdout


def test_status_before_a_run(tmp_path: Path) -> None:
    done = fmm_study("status", "digits", "--storage", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "0 done, 780 waiting; not running" in done.stdout


def test_behaviour_is_a_line_a_network_or_a_block() -> None:
    chosen = ("--merge", "add", "--merge", "mul", "--depth", "8", "--depth", "56", "--width", "4")
    lines = fmm_study("behaviour", *chosen).stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["add", "8"], ["mul", "8"], ["add", "56"], ["mul", "56"]]
    assert lines[1].endswith("fair") and not lines[4].endswith("fair")
    assert fmm_study("behaviour", *chosen[:2], "--depth", "8", "--blocks").stdout.count("stages.") == 3
    done = fmm_study("behaviour", "--merge", "addd")
    assert done.returncode == 2 and "did you mean 'add'" in done.stderr


def test_levels_lists_every_registered_part() -> None:
    rows = json.loads(fmm_study("levels", "--json").stdout)
    listed = {(row["kind"], row["name"]) for row in rows}
    assert len(listed) == len(rows)
    assert {
        ("merge", "mul"),
        ("attention", "se"),
        ("dataset", "digits"),
        ("statistic", "path"),
        ("sampler", "tpe"),
    } <= listed
    assert {row["kind"] for row in json.loads(fmm_study("levels", "merge", "--json").stdout)} == {"merge"}
    done = fmm_study("levels", "merg")
    assert done.returncode == 2 and "unknown kind 'merg' (did you mean 'merge'?)" in done.stderr
