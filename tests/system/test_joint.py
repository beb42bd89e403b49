"""Joint search: its front, its suggestions as a function of the ledger, and a whole small study without Ray."""

import copy

import pytest

from analysis.inputs import Inputs
from analysis.tables.build import build_table
from search_spaces import SpecError, load_spec, parse_spec
from study.checks.audit import audit
from study.errors import UserError
from study.planning import pareto
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.planning.search import suggest
from study.results.ledger import Contents, Ledger
from study.results.workspace import Workspace
from study.worker.group import discard_outcome, run_group

OBJECTIVES = [{"name": "val/accuracy", "direction": "maximize"}, {"name": "flops", "direction": "minimize"}]
FACTORS = [
    {"merge": ["add", "mul"], "attention": ["none"], "attention_form": ["none"]},
    {"merge": ["add"], "attention": ["se"], "attention_form": ["mul"]},
]
SMALL = {
    "factors": FACTORS,
    "joint": {"objectives": OBJECTIVES, "confirm": 2},
    "budget": {"search_trials": 4, "startup_trials": 2},
}


@pytest.fixture(scope="module")
def joint(spec_of):
    return lambda **changes: spec_of(**(SMALL | changes))


def finished(record_of, config, number, accuracy, flops, cell="a", **changes):
    metrics = {"val/loss": 1.0, "val/accuracy": accuracy}
    return record_of(config, cell=cell, number=number, metrics=metrics, flops=flops, **changes)


def test_the_front_of_planted_points(joint, record_of, config_of):
    points = [(0.9, 10), (0.8, 5), (0.85, 7), (0.8, 6), (0.7, 5), (0.9, 10), (0.99, 99), (0.5, 1)]
    records = [
        finished(record_of, config_of(lr=0.1 + i / 10), i, *point, cell=f"c{i}") for i, point in enumerate(points)
    ]
    records[6]["state"] = "collapsed"
    assert [record["number"] for record in pareto.front(joint(), records)] == [0, 1, 2, 7]
    # by hand: of 0 (.9, 10), 1 (.8, 5), 2 (.85, 7), 7 (.5, 1) the ends stay and 2 is the most crowded:
    # 1 has (.85-.5)/.4 + (7-1)/9 = 1.54, 2 has (.9-.8)/.4 + (10-5)/9 = .81
    three = joint(joint={"objectives": OBJECTIVES, "confirm": 3})
    assert [record["number"] for record in pareto.chosen(three, records)] == [0, 1, 7]
    assert [record["number"] for record in pareto.chosen(joint(), records)] == [0, 7]
    assert pareto.crowding([(-0.85, 7), (-0.8, 5), (-0.9, 10), (-0.5, 1)])[:2] == pytest.approx(
        [0.80556, 1.54167], abs=1e-4
    )


def test_one_trial_a_cell_is_confirmed(joint, record_of, config_of):
    records = [finished(record_of, config_of(lr=0.1 + i / 10), i, 0.9 - i / 10, 10 - i) for i in range(3)]
    assert [record["number"] for record in pareto.chosen(joint(), records)] == [0]


def toy(cell, values):
    """Accuracy and cost planted by cell: ``mul`` is best and dear, ``add`` cheap, ``se`` beaten; lr best near 0.1."""
    top, flops = {"add": (0.8, 10), "mul": (0.95, 30), "se": (0.7, 40)}[cell]
    return top - abs(values["lr"] - 0.1), flops


def rollout(spec, trials, record_of, config_of, block=0, history=()):
    history = list(history)
    while len(history) < trials:
        cell, values = suggest(spec, {"add": {}, "mul": {}, "se": {}}, block, history)
        history.append(
            finished(record_of, config_of(**values), len(history), *toy(cell, values), cell=cell, block=block)
        )
    return history


def test_a_planted_front_is_found_and_a_suggestion_is_a_function_of_its_history(joint, record_of, config_of):
    spec = joint(budget={"search_trials": 30, "startup_trials": 8})
    history = rollout(spec, 30, record_of, config_of)
    best = {record["cell"]: record for record in pareto.chosen(spec, history)}
    assert set(best) == {"add", "mul"}
    assert all(abs(record["config"]["lr"] - 0.1) < 0.05 for record in best.values())
    again = rollout(spec, 13, record_of, config_of, history=copy.deepcopy(history[:10]))
    assert again == history[:13]
    assert rollout(spec, 3, record_of, config_of, block=1)[0]["config"] != history[0]["config"]


def test_lost_trials_are_no_hindrance_and_a_finite_space_ends(joint, record_of, config_of):
    spec = joint(nuisance={"lr": {"choices": [0.1, 0.2]}}, budget={"search_trials": 9, "startup_trials": 2})
    history = []
    while (suggested := suggest(spec, {"add": {}, "mul": {}}, 0, history)) is not None:
        cell, values = suggested
        history.append(record_of(config_of(**values), state="diverged", cell=cell, number=len(history)))
    assert len({(record["cell"], record["config"]["lr"]) for record in history}) == len(history) == 4
    assert pareto.chosen(spec, history) == []


def run(plan, root, left=10**9):
    """What the driver does, in this process; stops after ``left`` groups."""
    with Ledger(root / "ledger") as ledger:
        agenda = Agenda(plan, ledger.contents)
        while left and (group := agenda.next_group()) is not None:
            left -= 1
            assert len({task.cell for task in group}) == 1
            for event in run_group(group, root):
                for record in event if isinstance(event, list) else []:
                    ledger.append(record)
                    discard_outcome(root, record["trial_key"])
            agenda.group_ended(group)
        return agenda.done, ledger.contents


def summarised(contents):
    return sorted(
        (r["trial_key"], r["cell"], r["phase"], r["block"], r["number"], r["metrics"].get("val/loss"))
        for r in contents.replicates.values()
    )


def test_a_whole_study_broken_off_and_continued(joint, tmp_path):
    plan = make_plan(joint())
    done, whole = run(plan, tmp_path / "whole")
    search = [r for r in whole.replicates.values() if r["phase"] == "search"]
    confirmed = [r for r in whole.replicates.values() if r["phase"] == "confirm"]
    assert done and len(search) == plan.num_search == 8 and 1 <= len(confirmed) <= plan.num_confirm == 4
    assert not any(name.startswith("test/") for record in search for name in record["metrics"])
    assert all("test/accuracy" in record["metrics"] for record in confirmed)
    for left in (1, 3, 10**9):
        done, broken = run(plan, tmp_path / "broken", left)
    assert done and summarised(broken) == summarised(whole)
    assert list(audit(plan, whole, Workspace(tmp_path / "whole"))) == []
    rows = build_table(Inputs(spec=plan.spec, contents=whole), "pareto").to_pylist()
    assert {(r["cell"], r["block"], r["number"]) for r in confirmed} == {
        (r["cell"], r["block"], r["number"]) for r in rows
    }
    assert all(row["test_accuracy"] is not None and "flops=" in row["objectives"] for row in rows)
    moved = copy.deepcopy(whole)
    first = next(iter(moved.replicates.values()))
    first["cell"] = next(cell.name for cell in plan.cells if cell.name != first["cell"])
    assert any("Optuna suggests" in line for line in audit(plan, moved, Workspace(tmp_path / "whole")))


def test_a_joint_search_over_other_cells_is_another_study(joint, tmp_path):
    workspace = Workspace(tmp_path)
    workspace.freeze(joint())
    workspace.freeze(joint(blocks=3, budget={"search_trials": 5, "startup_trials": 2}))
    with pytest.raises(UserError, match="joint search over other cells"):
        workspace.freeze(joint(blocks=3, budget={"search_trials": 5, "startup_trials": 2}, factors=FACTORS[:1]))


def test_no_table_where_nothing_is_joint(spec_of):
    assert build_table(Inputs(spec=spec_of(), contents=Contents()), "pareto").num_rows == 0


TEXT = """
name: best
factors: {merge: [add, mul]}
fixed: {dataset: fake, depth: 8}
nuisance: {lr: {low: 0.01, high: 1.0, log: true, default: 0.1}}
blocks: 2
budget: {search_trials: 4, startup_trials: 2}
joint: {objectives: [{name: val/accuracy, direction: maximize}, {name: flops, direction: minimize}]}
"""


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("control={arm: {merge: mul}, reference: {merge: add}}", ["control with joint", "best network"]),
        ("contrasts=[{arm: {merge: mul}, reference: {merge: add}}]", ["contrasts with joint"]),
        ("joint.objectives=[{name: val/loss, direction: minimize}]", ["joint.objectives", "at least 2"]),
        ("joint.objectives=[{name: test/accuracy, direction: maximize}, {name: flops, direction: minimize}]",
         ["joint.objectives.0.name", "'val/accuracy'", "'test/accuracy'"]),
        ("joint.objectives=[{name: flops, direction: minimize}, {name: flops, direction: minimize}]", ["'flops'", "twice"]),
        ("joint.objective=1", ["unknown key 'joint.objective'", "did you mean 'objectives'"]),
        ("joint.confirm=0", ["joint.confirm", "got 0"]),
        ("scheduler.name=median", ["scheduler='median' with joint"]),
        ("budget={search_trials: 0, startup_trials: 0}", ["budget.search_trials=0 with joint"]),
    ],
)  # fmt: skip
def test_what_has_no_place_in_a_joint_search_is_refused(override, parts):
    parse_spec(TEXT, "here")
    with pytest.raises(SpecError) as caught:
        parse_spec(TEXT, "here", [override])
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_the_preset_is_the_study_it_says():
    plan = make_plan(load_spec("joint"))
    assert (len(plan.cells), plan.num_search, plan.num_confirm) == (18, 48, 8) and plan.spec.demonstration
