"""The agenda under a made-up worker: no order of finishing, group size or interruption changes what is run."""

import copy
import random
from collections import Counter

import pytest
from made_up_worker import Interrupted, Worker, slots

from study.config import Task
from study.planning import search
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.results.ledger import Contents, Ledger
from study.seeding import derive_seed

STATISTICS = {"path": {"num_pairs": 16}, "input_jacobian": {}}


@pytest.fixture(scope="module")
def drive(record_of, measured_of):
    def driven(plan, contents, order=0, left=None, append=None, states=(), at_once=99):
        """Run the study with groups ending in any ``order``; returns the tasks handed out, interrupted or not."""
        agenda, chance = Agenda(plan, contents), random.Random(order)
        worker = Worker(append or contents.add, record_of, measured_of, left, states)
        running: list[list[Task]] = []
        try:
            while True:
                while len(running) < at_once and chance.random() < 0.8 and (group := agenda.next_group()):
                    threads = [(task.cell, task.block) for other in running for task in other]
                    assert not {(task.cell, task.block) for task in group} & set(threads)
                    running.append(group)
                    worker.handed += group
                    assert len(worker.handed) < 100  # it comes to an end
                if running:
                    assert not agenda.done
                    group = running.pop(chance.randrange(len(running)))
                    for task in group:
                        worker.run(task)
                    agenda.group_ended(group)
                elif agenda.done:
                    assert agenda.next_group() is None
                    return worker.handed
        except Interrupted:
            return worker.handed

    return driven


def measured(contents):
    return {(m["trial_key"], m["statistic"]): m["measure_key"] for m in contents.measures.values()}


def study(spec_of, **changes):
    return make_plan(spec_of(measure={"statistics": STATISTICS}, **changes))


@pytest.fixture(scope="module")
def reference(spec_of, drive):
    """The small study run one group after another."""
    contents = Contents()
    drive(study(spec_of), contents, at_once=1)
    return contents


def test_the_reference_is_complete(spec_of, reference):
    plan = study(spec_of)
    counts = Counter((cell, phase, block) for cell, phase, block, *_ in slots(reference))
    assert counts == {
        (cell.name, phase, block): n
        for cell in plan.cells
        for phase, n in (("search", 3), ("confirm", 1))
        for block in (0, 1)
    }
    assert len(slots(reference)) == len(reference.replicates) == plan.num_search + plan.num_confirm == 16
    confirmed = {r["trial_key"] for r in reference.replicates.values() if r["phase"] == "confirm"}
    assert set(measured(reference)) == {(key, name) for key in confirmed for name in STATISTICS}


@pytest.mark.parametrize("group", [1, 2, 3, 8])
@pytest.mark.parametrize("order", range(3))
def test_neither_order_nor_group_size_changes_what_is_run(spec_of, drive, reference, group, order):
    contents = Contents()
    handed = drive(study(spec_of, resources={"group": group}), contents, order=order)
    assert slots(contents) == slots(reference) and measured(contents) == measured(reference)
    assert len(handed) == len({task.config.trial_key for task in handed}) == 16  # nothing twice


def test_every_point_of_interruption_gives_the_same_study(spec_of, drive, reference):
    plan, total = study(spec_of, resources={"group": 2}), 16 + 8
    for left in range(total):
        contents = Contents()
        drive(plan, contents, order=left, left=left)
        before = copy.deepcopy(contents)
        assert len(before.replicates) + len(before.measures) == left
        handed = drive(plan, contents, order=left + 1)
        assert slots(contents) == slots(reference) and measured(contents) == measured(reference)
        for task in handed:  # what the ledger holds is not run again, but for measurements that it lacks
            known = task.config.trial_key in before.replicates
            assert not known or (task.statistics and task.phase == "confirm")
            assert not any(
                m["trial_key"] == task.config.trial_key and m["statistic"] in task.statistics
                for m in before.measures.values()
            )


def test_a_study_broken_off_again_and_again_comes_to_its_end(spec_of, drive, reference, tmp_path):
    """Through a real ledger, which is opened anew each time."""
    plan = study(spec_of, resources={"group": 3})
    for attempt in range(100):
        with Ledger(tmp_path) as ledger:
            if Agenda(plan, ledger.contents).done:
                break
            drive(plan, ledger.contents, order=attempt, left=2, append=ledger.append)
    assert attempt == 12  # 24 records, two an attempt
    with Ledger(tmp_path) as ledger:
        assert slots(ledger.contents) == slots(reference) and measured(ledger.contents) == measured(reference)


def test_a_finished_study_has_nothing_ahead(spec_of, reference):
    assert Agenda(study(spec_of), reference).done and Agenda(study(spec_of), reference).next_group() is None


@pytest.mark.parametrize(
    "new",
    [{"noise_stability": {"num_draws": 3}}, {"noise_accuracy": {"sigmas": [16]}}, {"frequency": {"num_pairs": 9}}],
)
def test_a_new_statistic_is_measured_and_nothing_is_trained(spec_of, drive, reference, new):
    contents = copy.deepcopy(reference)
    wider = make_plan(spec_of(measure={"statistics": {**STATISTICS, **new}}))
    handed = drive(wider, contents)
    assert {task.config.trial_key for task in handed} == {
        k for k, r in reference.replicates.items() if r["phase"] == "confirm"
    }
    assert all(task.phase == "confirm" and task.statistics == new for task in handed)
    assert slots(contents) == slots(reference) and len(contents.measures) == len(reference.measures) + 4
    assert Agenda(study(spec_of), contents).done  # taking it away again leaves nothing to do


def test_settings_written_differently_are_one_measurement(spec_of, reference):
    for path, done in (({"num_pairs": 16, "num_steps": 32}, True), ({"num_pairs": 17}, False)):
        assert Agenda(make_plan(spec_of(measure={"statistics": {"path": path}})), reference).done == done


WIDER = [
    {"blocks": 3},
    {"factors": {"merge": ["sig_bn", "mul", "add"]}},
    {"factors": [{"merge": ["mul", "add", "none"]}]},
]


@pytest.mark.parametrize("changes", WIDER, ids=str)
def test_extending_blocks_and_levels_only_adds(spec_of, drive, reference, changes):
    contents, plan = copy.deepcopy(reference), study(spec_of, **changes)
    handed = drive(plan, contents)
    assert not {task.config.trial_key for task in handed} & reference.replicates.keys() and len(handed) == 8
    assert slots(reference).items() <= slots(contents).items()
    fresh = Contents()
    drive(plan, fresh, order=5)
    assert slots(fresh) == slots(contents)  # as if it had been so from the start


def test_extending_the_search_only_adds_trials_and_new_winners(spec_of, drive, reference):
    contents, plan = copy.deepcopy(reference), study(spec_of, budget={"search_trials": 6, "startup_trials": 2})
    handed = drive(plan, contents)
    assert slots(reference).items() <= slots(contents).items()
    searched = [task for task in handed if task.phase == "search"]
    assert Counter((t.cell, t.block) for t in searched) == dict.fromkeys(
        ((c.name, b) for c in plan.cells for b in (0, 1)), 3
    )
    assert {task.number for task in searched} == {3, 4, 5}
    fresh = Contents()
    drive(plan, fresh, order=5)
    assert {s: k for s, k in slots(contents).items() if s[1] == "search"} == {
        s: k for s, k in slots(fresh).items() if s[1] == "search"
    }
    # where the winner stayed, its confirmation stands; where it changed, the new one is run too
    winners = {key for (_, phase, *_), (key, *_) in slots(fresh).items() if phase == "confirm"}
    assert winners <= contents.replicates.keys()
    assert {t.config.trial_key for t in handed if t.phase == "confirm"} == winners - reference.replicates.keys()


def test_a_cells_results_do_not_reach_another_cell(spec_of, drive, reference):
    """Alone, or beside other cells, a cell is suggested the same."""
    contents = Contents()
    drive(study(spec_of, factors={"merge": ["mul"]}), contents)
    assert slots(contents) == {slot: key for slot, key in slots(reference).items() if slot[0] == "fake/d8/mul"}


@pytest.mark.parametrize("states", [("diverged",), ("diverged", "failed", "pruned")])
def test_a_cell_without_survivors_confirms_its_default_and_says_so(spec_of, drive, states):
    contents = Contents()
    handed = drive(study(spec_of), contents, states=states)
    confirmed = [task for task in handed if task.phase == "confirm"]
    assert len(confirmed) == 4
    for task in confirmed:
        assert task.defaulted and task.boundary == () and task.number == 3
        assert (task.config.lr, task.config.weight_decay) == (0.1, 0.001)
    assert not any(task.defaulted for task in handed if task.phase == "search")


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_a_confirmed_replicate_that_is_lost_is_not_measured(spec_of, reference, state):
    lost = {k: r | ({"state": state} if r["phase"] == "confirm" else {}) for k, r in reference.replicates.items()}
    assert Agenda(study(spec_of), Contents(replicates=lost)).done
    assert not Agenda(study(spec_of), Contents(replicates=reference.replicates)).done


def test_tasks_hold_what_the_plan_says(spec_of, reference, drive):
    plan, contents = study(spec_of), Contents()
    for task in drive(plan, contents):
        config = task.config
        assert config.split_seed == derive_seed(7, "split", task.block)  # shared by all cells and phases of the block
        assert config.seed == derive_seed(7, task.phase, task.block) and task.replicate == task.block
        assert (config.width, config.epochs, config.dataset) == (4, 2, "fake") and config.merge in task.cell
        assert task.checkpoints == ("final" if task.phase == "confirm" else "none")
        assert Task.from_plain(task.to_plain()) == task
        if task.phase == "confirm":
            thread = (task.cell, "search", task.block)
            told = [r for r in contents.replicates.values() if (r["cell"], r["phase"], r["block"]) == thread]
            assert search.winner(plan.spec, told)[0] == {"lr": config.lr, "weight_decay": config.weight_decay}


def test_search_epochs_are_for_the_search(spec_of, drive):
    plan = study(spec_of, budget={"search_trials": 1, "startup_trials": 1, "search_epochs": 1})
    assert {(task.phase, task.config.epochs) for task in drive(plan, Contents())} == {("search", 1), ("confirm", 2)}


def test_the_median_scheduler_stops_later_trials_and_never_the_confirmed(spec_of, drive):
    scheduler = {"name": "median", "settings": {"min_trials": 2, "grace_epochs": 1}}
    plan = study(spec_of, scheduler=scheduler, budget={"search_trials": 5, "startup_trials": 2})
    one, two = Contents(), Contents()
    handed = drive(plan, one, states=("completed",), at_once=1)
    drive(plan, two, order=3, states=("completed",))
    assert slots(one) == slots(two)
    for task in handed:
        assert bool(task.config.stop_curve) == (task.phase == "search" and task.number >= 2)


def test_a_finite_space_smaller_than_the_budget_ends_early(spec_of, drive):
    plan = study(spec_of, nuisance={"lr": {"choices": [0.1, 0.2]}}, budget={"search_trials": 5, "startup_trials": 1})
    contents = Contents()
    handed = drive(plan, contents)
    assert Counter(task.phase for task in handed) == {"search": 8, "confirm": 4}
    assert Agenda(plan, contents).done


def test_one_search_and_many_seeds(spec_of, drive):
    plan = study(spec_of, blocks=1, replicates=3, resources={"group": 2})
    handed = [task for task in drive(plan, Contents()) if task.phase == "confirm"]
    by_cell = Counter(task.cell for task in handed)
    assert by_cell == {"fake/d8/add": 3, "fake/d8/mul": 3} and {task.replicate for task in handed} == {0, 1, 2}
    assert len({task.config.seed for task in handed}) == 3 and len({task.config.lr for task in handed}) <= 2


def test_without_a_search_the_defaults_are_confirmed_unflagged(spec_of, drive):
    handed = drive(study(spec_of, budget={"search_trials": 0, "startup_trials": 0}), Contents())
    assert len(handed) == 4 and all(t.phase == "confirm" and not t.defaulted and t.config.lr == 0.1 for t in handed)


def test_on_shortened_trainings_is_measured_what_claims_read(spec_of):
    claim = {
        "text": "t", "arm": {"merge": "mul"}, "references": [{"merge": "add"}],
        "outcomes": [{"name": "jacobian_unit_logits_mean_log", "margin": 0.1, "better": "lower"}],
    }  # fmt: skip
    measure = {"statistics": {"input_jacobian": {"num_samples": 8}, "noise_stability": {"num_samples": 8}}}
    given = {"measure": measure, "budget": {"search_trials": 2, "startup_trials": 1, "shortened": [0.5]}}
    plan = make_plan(spec_of(**given, claims={"C3": claim}))
    assert list(plan.statistics_of(0, "short")) == ["input_jacobian"]
    assert list(plan.statistics_of(0, "confirm")) == ["input_jacobian", "noise_stability"]
    accuracy = claim | {"outcomes": [{"name": "test/accuracy", "margin": 0.1}]}
    for claims in ({}, {"C4": accuracy}):  # no claim on a statistic: the matched comparison reads them all
        assert list(make_plan(spec_of(**given, claims=claims)).statistics_of(0, "short")) == list(measure["statistics"])
