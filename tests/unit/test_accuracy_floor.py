"""The accuracy floor: near chance unless a specification names it, fixed with the study, told where a network is below it."""

import json

import pytest
from rich.console import Console

from search_spaces import SpecError, load_spec
from study.atomic import read_json, write_json
from study.config import Task, TrialConfig
from study.data.dataset import near_chance
from study.errors import UserError
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.printing.levels import levels
from study.printing.status import print_status
from study.results.ledger import Contents
from study.results.provenance import noted_facts
from study.results.workspace import Workspace
from study.training import Progress
from study.worker.group import run_group

FIXED = {"depth": 8, "width": 4, "epochs": 2, "batch_size": 16}


@pytest.mark.parametrize(
    ("largest", "floor"), [(1 / 2, 0.55), (1 / 4, 0.325), (1 / 10, 0.19), (1 / 100, 0.02), (1 / 1000, 0.002)]
)
def test_near_chance_is_above_guessing_and_close_to_it(largest, floor):
    assert near_chance(largest) == floor


@pytest.mark.parametrize(
    ("given", "floors"),
    [
        ({}, {"fake": 0.325, "digits": 0.1914}),
        ({"accuracy_floor": 0.5}, {"fake": 0.5, "digits": 0.5}),
        ({"accuracy_floor": 0}, {"fake": 0.0, "digits": 0.0}),
        ({"accuracy_floor": {"digits": 0.9}}, {"fake": 0.325, "digits": 0.9}),
        ({"accuracy_floor": {"all": 0.5, "digits": 0.9}}, {"fake": 0.5, "digits": 0.9}),
    ],
)
def test_a_plan_has_the_floor_of_each_dataset_and_tasks_take_it_along(spec_of, given, floors):
    plan = make_plan(spec_of(factors={"dataset": ["fake", "digits"]}, fixed=FIXED, **given))
    assert plan.spec.accuracy_floor == floors
    agenda = Agenda(plan, Contents())
    for _ in range(2):
        for task in agenda.next_group():
            assert task.accuracy_floor == floors[task.config.dataset]
            assert Task.from_plain(json.loads(json.dumps(task.to_plain()))) == task
    assert "accuracy_floor" not in TrialConfig.__dataclass_fields__  # it changes no weights, so no key


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (90, "accuracy_floor.all: Input should be less than or equal to 1, got 90"),
        ("high", "accuracy_floor: needs a share from 0 to 1, or one by dataset, got 'high'"),
        (True, "accuracy_floor: needs a share from 0 to 1, or one by dataset, got True"),
        ({"digit": 0.5}, "accuracy_floor names 'digit', which is no dataset of this study (did you mean 'digits'?)"),
        ({"digits": -0.1}, "accuracy_floor.digits: Input should be greater than or equal to 0, got -0.1"),
    ],
)
def test_a_floor_that_cannot_be_is_refused_by_its_key(given, told):
    values = {
        "name": "x", "factors": {"merge": ["add"]}, "fixed": {"dataset": "digits"}, "blocks": 2,
        "budget": {"search_trials": 0, "startup_trials": 0}, "accuracy_floor": given,
    }  # fmt: skip
    with pytest.raises(SpecError) as caught:
        load_spec(values)
    assert str(caught.value) == f"specification: {told}"


@pytest.mark.parametrize(
    ("floor", "state", "reason"),
    [
        (0.9, "collapsed", "validation .50 below the floor of .90 after 2 epochs"),
        (0.5001, "collapsed", "validation .50 below the floor of .5001 after 2 epochs"),
        (0.5, "completed", ""),
        (None, "completed", ""),
    ],
)
def test_a_record_says_why_its_network_collapsed(config_of, tmp_path, monkeypatch, floor, state, reason):
    monkeypatch.setattr("study.worker.group.evaluate", lambda *_, **__: {"accuracy": 0.5, "loss": 1.0})
    task = Task(config=config_of(), cell="c", phase="search", block=0, replicate=0, number=0, accuracy_floor=floor)
    ((record,),) = (event for event in run_group([task], tmp_path) if not isinstance(event, Progress))
    assert (record["state"], record["reason"]) == (state, reason)


def begun(folder, spec):
    """A study's folder after its first run; what it recorded."""
    Workspace(folder).freeze(make_plan(spec).spec)
    return read_json(folder / "study.json")


def test_a_study_begun_before_specifications_held_floors_keeps_those_of_then(spec_of, tmp_path):
    workspace, spec = Workspace(tmp_path), spec_of()
    held = begun(tmp_path, spec)
    assert held.pop("accuracy_floor") == {"fake": 0.325}
    write_json(tmp_path / "study.json", held)
    assert make_plan(workspace.as_begun(spec)).spec.accuracy_floor == {"fake": 0.3}
    assert workspace.specification().accuracy_floor == {"fake": 0.3}
    # a dataset that is added has the floor of now
    wider = spec_of(factors={"merge": ["add", "mul"], "dataset": ["fake", "digits"]}, fixed=FIXED)
    assert make_plan(workspace.as_begun(wider)).spec.accuracy_floor == {"fake": 0.3, "digits": 0.1914}
    with pytest.raises(UserError, match=r"holds networks judged by accuracy_floor.fake = 0.3, not 0.325; use another"):
        workspace.freeze(make_plan(spec).spec)
    workspace.freeze(make_plan(workspace.as_begun(spec)).spec)
    assert read_json(tmp_path / "study.json")["accuracy_floor"] == {"fake": 0.3}


def test_the_floor_is_fixed_with_the_study(spec_of, tmp_path):
    begun(tmp_path, spec_of(accuracy_floor=0.5))
    workspace = Workspace(tmp_path)
    for given in ({}, {"accuracy_floor": 0.5}, {"accuracy_floor": {"fake": 0.5}}):
        assert workspace.as_begun(spec_of(**given)).accuracy_floor == {"fake": 0.5}
    with pytest.raises(UserError, match=r"judged by accuracy_floor.fake = 0.5, not 0.4; use another name or --storage"):
        workspace.freeze(workspace.as_begun(spec_of(accuracy_floor=0.4)))


def test_of_images_of_ones_own_a_study_begun_before_leaves_the_floor_to_the_worker(spec_of):
    """What a study noted of its images says nothing of how its classes are shared out."""
    noted = {"image_shape": [1, 8, 8], "num_classes": 4, "num_pool": 64, "num_val": 16, "num_test": 32}
    plan = make_plan(spec_of(), needs_data=False, known=noted_facts([{"datasets": {"fake": noted}}]))
    assert plan.spec.accuracy_floor == {} and Agenda(plan, Contents()).next_group()[0].accuracy_floor is None


def test_status_tells_what_collapsed_networks_reach(spec_of, config_of, record_of, tmp_path, capsys):
    plan, contents = make_plan(spec_of(accuracy_floor=0.9)), Contents()
    for seed, reached in enumerate((0.65, 0.897)):
        metrics = {"val/accuracy": reached}
        contents.add(record_of(config_of(seed=seed), state="collapsed", cell=plan.cells[0].name, metrics=metrics))
    print_status(plan, contents, Workspace(tmp_path), Console(width=100), ended=False)
    told = capsys.readouterr().out.splitlines()
    line = "fake/d8/add: 2 collapsed, at a validation accuracy of 65.0 to 89.7%, below accuracy_floor = 0.9"
    assert [each for each in told if "accuracy_floor" in each] == [line]


def test_levels_show_the_floors_of_datasets():
    found = {row["name"]: row["accuracy_floor"] for row in levels("dataset")}
    assert (found["digits"], found["cifar100"], found["image_folder"]) == ("0.1914", "0.02", "by its data")
    assert all("accuracy_floor" not in row for row in levels("merge"))
