"""Audit finds what is wrong and nothing else; retry runs failures again. On real trainings of made-up images, no Ray."""

import json
import os
import shutil
from pathlib import Path

import pytest

from analysis.inputs import Inputs
from analysis.tables.build import build_tables
from search_spaces import load_spec
from study.checks.audit import audit
from study.planning.agenda import Agenda
from study.planning.layout import Plan
from study.planning.plan import make_plan
from study.results.ledger import Ledger, encode, read_ledger, segments
from study.results.workspace import Workspace
from study.worker.group import discard_outcome, run_group


def run(plan: Plan, workspace: Workspace, *, retry_failed: bool = False) -> list[str]:
    """What the driver does, in this process; the keys that were run."""
    handed = []
    with Ledger(workspace.ledger) as ledger:
        agenda = Agenda(plan, ledger.contents, retry_failed=retry_failed)
        while (group := agenda.next_group()) is not None:
            handed += [task.config.trial_key for task in group]
            for event in run_group(group, workspace.root):
                for record in event if isinstance(event, list) else []:
                    ledger.append(record)
                    discard_outcome(workspace.root, record["trial_key"])
            agenda.group_ended(group)
        build_tables(Inputs(spec=plan.spec, contents=ledger.contents), workspace.tables, ["trials"], ["parquet"])
    return handed


@pytest.fixture(scope="module")
def plan(calm_fake: Path) -> Plan:
    return make_plan(load_spec(str(calm_fake / "kill.yaml")))


@pytest.fixture
def workspace(calm_fake: Path, tmp_path: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(calm_fake / "kill", tmp_path / "kill")))


def faults(plan: Plan, workspace: Workspace) -> list[str]:
    return list(audit(plan, read_ledger(workspace.ledger), workspace))


def rewrite(workspace: Workspace, change) -> None:
    """Apply ``change`` to every record and write the ledger anew."""
    contents = read_ledger(workspace.ledger)
    records = [*contents.replicates.values(), *contents.measures.values()]
    (path,) = segments(workspace.ledger)
    path.write_bytes(b"".join(encode(record) for record in map(change, records) if record is not None))


def test_a_finished_study_has_no_fault(plan, workspace) -> None:
    assert faults(plan, workspace) == []


def test_a_damaged_line_and_a_double(plan, workspace) -> None:
    (path,) = segments(workspace.ledger)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[0], b"deadbeef {}\n"]))
    found = faults(plan, workspace)
    assert any("line" in fault and "is damaged" in fault for fault in found)
    assert any("is written 2 times" in fault for fault in found)
    assert len(found) == 2


def test_a_changed_result_is_seen_in_the_table(plan, workspace) -> None:
    changed = []

    def change(record):
        if record["kind"] == "replicate" and record["phase"] == "confirm" and not changed:
            changed.append(record["trial_key"])
            record["metrics"]["test/accuracy"] = 0.123
        return record

    rewrite(workspace, change)
    (fault,) = faults(plan, workspace)
    assert changed[0] in fault and "test/accuracy" in fault and "0.123" in fault


def test_optuna_is_asked_again(plan, workspace) -> None:
    """Search results that were tampered with no longer lead to what was run next, or to what was confirmed."""

    def change(record):
        if record["kind"] == "replicate" and record["phase"] == "search":
            record["metrics"]["val/loss"] = 1 / record["metrics"]["val/loss"]  # the best becomes the worst
        return record

    rewrite(workspace, change)
    found = faults(plan, workspace)
    assert any("the winner is" in fault or "Optuna suggests" in fault for fault in found)


def test_a_setting_that_does_not_fit_its_key(plan, workspace) -> None:
    def change(record):
        if record["kind"] == "replicate" and record["number"] == 1:
            record["config"]["lr"] *= 2
        return record

    rewrite(workspace, change)
    assert any("its settings have another key" in fault for fault in faults(plan, workspace))


def test_a_missing_checkpoint_and_a_left_over_file(plan, workspace) -> None:
    kept = sorted((workspace.root / "checkpoints").glob("*/final.pt"))
    kept[0].unlink()
    left = kept[1].parent / "outcome.json"
    left.write_text(json.dumps([]))
    # of a group at work, or killed since the last run ended; what is half trained of a finished one never stands there
    (kept[2].parent / "state.pt").touch()
    assert any("state.pt is left over" in fault for fault in faults(plan, workspace))
    (kept[2].parent / "state.pt").unlink()
    assert not any("left over" in fault for fault in faults(plan, workspace))
    report = workspace.root / "report.html"
    report.touch()
    os.utime(left, (0, report.stat().st_mtime - 1))
    found = faults(plan, workspace)
    assert any("final.pt is missing" in fault for fault in found)
    assert any("outcome.json is left over" in fault for fault in found)
    assert len(found) == 2


def test_a_missing_measurement(plan, workspace) -> None:
    rewrite(workspace, lambda record: record if record["kind"] == "replicate" else None)
    found = faults(plan, workspace)
    assert len(found) == sum(r["phase"] == "confirm" for r in read_ledger(workspace.ledger).replicates.values())
    assert all("lacks input_jacobian" in fault for fault in found)


def test_failed_replicates_are_run_again_when_asked(plan, workspace) -> None:
    """A failed search trial and a failed confirm come back with the very results of a study without failures."""
    whole = read_ledger(workspace.ledger).replicates
    lost = [key for key, record in whole.items() if record["phase"] == "confirm"][:1]

    def change(record):
        if record["kind"] == "replicate" and record["trial_key"] in lost:
            record |= {"state": "failed", "reason": "out of memory", "metrics": {}, "curves": {}}
        return record

    rewrite(workspace, change)
    shutil.rmtree(workspace.root / "checkpoints" / lost[0])
    assert run(plan, workspace) == []
    assert run(plan, workspace, retry_failed=True) == lost
    again = read_ledger(workspace.ledger).replicates
    assert again[lost[0]]["metrics"] == whole[lost[0]]["metrics"]
    assert faults(plan, workspace) == []
    assert run(plan, workspace, retry_failed=True) == []
