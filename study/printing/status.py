"""How far a study is: per cell what is done and how it ended, what waits, what failed and why; as a table or as JSON."""

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from study.errors import UserError
from study.planning.layout import Plan
from study.printing.console import print_table, say
from study.results.ledger import Contents
from study.results.workspace import Workspace
from study.schema import STATES, Phase

# phases as ``status`` names them
PHASES: dict[Phase, str] = {"search": "search", "confirm": "confirmed", "short": "shortened"}


def status_of(plan: Plan, contents: Contents, workspace: Workspace, *, ended: bool) -> dict[str, Any]:
    """What ``status --json`` prints: cells with counts by phase and outcome, ``done``, ``waiting``, ``driver``, causes.

    ``ended``: nothing is left to run, although a plan may have more: a joint or sequential one, or one of a conditional space.
    ``planned`` of a phase is ``None`` in a joint search, which has no number per cell. Replicates that the plan does not ask
    for (of further blocks, say) count as ``further`` alone.
    """
    spec = plan.spec
    each = spec.blocks * spec.replicates
    planned: dict[Phase, int] = {"search": spec.blocks * plan.trials_a_search, "confirm": each}
    if plan.num_short:
        planned["short"] = plan.num_short // len(plan.cells)
    held = list(contents.replicates.values())
    asked = [record for record in held if plan.asks_for(record)]
    cells = []
    for cell in plan.cells:
        records = [record for record in asked if record["cell"] == cell.name]
        phases, states = Counter(r["phase"] for r in records), Counter(r["state"] for r in records)
        counts = {
            PHASES[phase]: {"done": phases[phase], "planned": None if spec.joint else num}
            for phase, num in planned.items()
        }
        cells.append(
            {
                "cell": cell.name,
                **counts,
                "outcomes": {state: states[state] for state in STATES},
                "accuracy_floor": spec.floor_of(cell.settings["dataset"]),
                # of the networks below it, on validation images
                "collapsed": sorted(
                    r["metrics"]["val/accuracy"]
                    for r in records
                    if r["state"] == "collapsed" and "val/accuracy" in r["metrics"]
                ),
            }
        )
    waiting = 0 if ended else plan.num_trainings - len(asked)
    return {
        "study": spec.name,
        "folder": str(workspace.root),
        "cells": cells,
        "done": len(asked),
        "further": len(held) - len(asked),
        "waiting": waiting,
        "waiting_at_most": bool(waiting and (spec.joint or spec.sequential or spec.space)),
        "driver": workspace.holder(),
        "failed": dict(_failures(contents).most_common()),
        "not_measured": dict(_unmeasured(contents).most_common()),
        "damaged_lines": contents.num_damaged,
    }


def print_status(plan: Plan, contents: Contents, workspace: Workspace, console: Console, *, ended: bool) -> None:
    """Print ``status_of``: one row per cell, search trials and replicates done and every outcome counted; then causes."""
    found = status_of(plan, contents, workspace, ended=ended)
    phases = [name for name in PHASES.values() if name in found["cells"][0]]
    rows = []
    for cell in found["cells"]:
        counts = [cell[phase] for phase in phases]
        shown = [
            str(count["done"]) if count["planned"] is None else "{done}/{planned}".format(**count) for count in counts
        ]
        rows.append([cell["cell"], *shown, *(str(num or "-") for num in cell["outcomes"].values())])
    print_table(console, ["cell", *phases, *STATES], rows)
    driver = (
        "running as process {pid} on {host} since {since}".format(**found["driver"])
        if found["driver"]
        else "not running"
    )
    further = f" ({found['further']} more that this plan does not ask for)" if found["further"] else ""
    most = "at most " if found["waiting_at_most"] else ""
    say(console, f"{found['done']} done{further}, {most}{found['waiting']} waiting; {driver}")
    for line in [*used_up(plan), *filter(None, map(_collapsed, found["cells"]))]:
        say(console, line)
    print_failures(workspace, contents, console)
    if found["damaged_lines"]:
        say(console, f"{found['damaged_lines']} damaged ledger lines were left out")


def _collapsed(cell: Mapping[str, Any]) -> str:
    """What the collapsed networks of a cell reach, in a line; empty without any."""
    if not cell["collapsed"]:
        return ""
    within = " to ".join(f"{100 * reached:.1f}" for reached in sorted({min(cell["collapsed"]), max(cell["collapsed"])}))
    below = "" if cell["accuracy_floor"] is None else f", below accuracy_floor = {cell['accuracy_floor']:.4g}"
    return f"{cell['cell']}: {cell['outcomes']['collapsed']} collapsed, at a validation accuracy of {within}%{below}"


def used_up(plan: Plan) -> list[str]:
    """A line where searches end before their budget, for they have tried all there is."""
    asked, there = plan.spec.budget.search_trials, plan.trials_a_search
    if there == asked:
        return []
    return [f"each search ends after {there} of budget.search_trials = {asked}: its space has no more points"]


def print_failures(workspace: Workspace, contents: Contents, console: Console) -> None:
    """Print each cause of failure once, what failed of it, and the command that runs it again."""
    failed, unmeasured = _failures(contents), _unmeasured(contents)
    for what, causes in (("failed", failed), ("not measured", unmeasured)):
        for cause, count in causes.most_common():
            say(console, f"{what} ({count}): {cause}")
    if failed or unmeasured:
        say(console, f"to run them again: {_again(workspace)}")


def refuse_all_failed(workspace: Workspace, contents: Contents) -> None:
    """Raise ``UserError``, with the most frequent cause, where every training of a study has failed."""
    causes = _failures(contents)
    if causes and causes.total() == len(contents.replicates):
        (cause, count), *others = causes.most_common()
        more = f" ({count} of them; fmm-study status tells the others)" if others else ""
        raise UserError(
            f"all {causes.total()} trainings failed{more}: {cause}; when that is mended: {_again(workspace)}"
        )


def _failures(contents: Contents) -> Counter[str]:
    """Cause -> how many trainings it ended."""
    return Counter(_cause(r["reason"]) for r in contents.replicates.values() if r["state"] == "failed")


def _unmeasured(contents: Contents) -> Counter[str]:
    """Statistic and cause -> how often it could not be measured."""
    return Counter(f"{m['statistic']}: {_cause(m['error'])}" for m in contents.measures.values() if m["error"])


def _again(workspace: Workspace) -> str:
    return f"fmm-study retry {workspace.argument} --failed"


def _cause(reason: str) -> str:
    """What a traceback ends with, after its last frame, as one line; any other text whole."""
    lines = reason.splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    told = itertools.dropwhile(
        lambda line: bool(frames) and line.startswith("  "), lines[frames[-1] if frames else 0 :]
    )
    return " ".join(" ".join(told).split()) or "no reason is known"
