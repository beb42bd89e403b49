"""Looks in the agenda: later blocks exist only where a look asks for them, in any order of finishing and after any kill."""

import copy
import random

import pytest
from made_up_worker import Interrupted, Worker, slots

from study.commands.show import agenda_of
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.results.ledger import Contents
from study.results.workspace import Workspace

LOOKS = [2, 3, 5]
CLAIM = {"text": "better", "arm": {"merge": "mul"}, "references": [{"merge": "add"}]}
CLAIM |= {"outcomes": [{"name": "test/accuracy", "margin": 0.02}]}


@pytest.fixture(scope="module")
def plan(spec_of):
    return make_plan(
        spec_of(
            factors={"merge": ["add", "add_alias", "mul", "sig_bn"]},
            blocks=5,
            sequential={"looks": LOOKS},
            claims={"C4": CLAIM},
            control={"arm": {"merge": "add_alias"}, "reference": {"merge": "add"}},
            budget={"search_trials": 1, "startup_trials": 1},
            resources={"group": 2},
        )
    )


def decide(asked):
    """After 2 blocks ``add`` and ``mul`` go on, after 3 ``mul`` alone; notes what was there when it was asked."""

    def go_on(contents, num_blocks):
        confirmed = [r for r in contents.replicates.values() if r["phase"] == "confirm"]
        asked.append((num_blocks, len(confirmed)))
        # every cell has its two first blocks whole, whoever finished first
        assert sum(r["block"] < 2 for r in confirmed) == 8
        return {2: ["fake/d8/add", "fake/d8/mul"], 3: ["fake/d8/mul"]}[num_blocks]

    return go_on


def drive(plan, contents, record_of, measured_of, order, left=None, asked=None):
    """Groups end in any order; ``left``: killed after so many records."""
    agenda = Agenda(plan, contents, go_on=decide([] if asked is None else asked))
    worker = Worker(contents.add, record_of, measured_of, left, states=("completed",))
    chance, running = random.Random(order), []
    try:
        while not agenda.done or running:
            while chance.random() < 0.7 and (group := agenda.next_group()):
                running.append(group)
            if running:
                group = running.pop(chance.randrange(len(running)))
                for task in group:
                    worker.run(task)
                agenda.group_ended(group)
    except Interrupted:
        pass
    return agenda


def blocks_of(contents):
    confirmed = [r for r in contents.replicates.values() if r["phase"] == "confirm"]
    return {cell: sum(r["cell"] == cell for r in confirmed) for cell in {r["cell"] for r in confirmed}}


def test_only_cells_that_a_look_asks_for_have_later_blocks(plan, record_of, measured_of):
    contents, asked = Contents(), []
    drive(plan, contents, record_of, measured_of, order=0, asked=asked)
    assert blocks_of(contents) == {
        "fake/d8/add": 3, "fake/d8/add_alias": 2, "fake/d8/mul": 5, "fake/d8/sig_bn": 2,
    }  # fmt: skip
    # each look was taken once, when its blocks were complete and no later one had begun
    assert asked == [(2, 8), (3, 10)]


def test_order_and_kills_change_nothing_and_the_look_follows_from_the_ledger(plan, record_of, measured_of):
    reference = Contents()
    drive(plan, reference, record_of, measured_of, order=0)
    total = len(reference.replicates)
    for left in range(0, total, 3):
        contents = Contents()
        drive(plan, contents, record_of, measured_of, order=left + 1, left=left)
        assert len(contents.replicates) == left
        drive(plan, contents, record_of, measured_of, order=left + 2)
        assert slots(contents) == slots(reference)
    again = copy.deepcopy(reference)
    assert drive(plan, again, record_of, measured_of, order=3).done and slots(again) == slots(reference)


def test_without_anyone_to_ask_a_study_ends_at_its_first_look(plan, record_of, measured_of):
    contents = Contents()
    agenda = Agenda(plan, contents)
    worker = Worker(contents.add, record_of, measured_of, states=("completed",))
    while group := agenda.next_group():
        for task in group:
            worker.run(task)
        agenda.group_ended(group)
    assert agenda.done and set(blocks_of(contents).values()) == {2}


def test_the_driver_asks_the_analysis(plan, record_of, measured_of, tmp_path):
    """Two and three pairs decide nothing: the cells of claim and control go on to the end, the others stop."""

    def accurate(config, **changes):
        return record_of(config, **changes) | {"metrics": {"test/accuracy": 0.9, "val/loss": 1.0}, "state": "completed"}

    contents = Contents()
    agenda = agenda_of(plan, contents, Workspace(tmp_path))
    worker = Worker(contents.add, accurate, measured_of, states=("completed",))
    while group := agenda.next_group():
        for task in group:
            worker.run(task)
        agenda.group_ended(group)
    assert agenda.done
    assert blocks_of(contents) == {
        "fake/d8/add": 5, "fake/d8/add_alias": 5, "fake/d8/mul": 5, "fake/d8/sig_bn": 2,
    }  # fmt: skip
