"""Searches in a database of Optuna's: what its own readers find there is what the search was told, once."""

import math
import sqlite3
import warnings

import matplotlib.pyplot as plt
import optuna
import pytest
from command_line import fmm_study
from optuna.trial import TrialState

from study.errors import UserError
from study.planning.exported import export_searches
from study.planning.layout import lay_out
from study.planning.search import SAMPLERS, WORST_LOSS, suggest
from study.results.ledger import Contents, Ledger
from study.results.workspace import Workspace
from study.seeding import derive_seed

CELL = "fake/d8/add"
NUISANCE = {"lr": {"low": 0.01, "high": 1.0, "log": True, "default": 0.1}, "momentum": {"choices": [0.9, 0.0]}}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """One database for all, whose studies have names of their own."""
    return f"sqlite:///{tmp_path_factory.mktemp('optuna') / 'searches.db'}"


@pytest.fixture(scope="module")
def searched(spec_of, config_of, record_of):
    """A study, and its ledger with a search trial for each of ``ends``, in this order: a state, and what it changes."""

    def make(name, ends, **changes):
        spec, contents = spec_of(name=name, nuisance=NUISANCE, **changes), Contents()
        for number, (state, told) in enumerate(ends):
            config = config_of(lr=0.01 * 1.5**number, momentum=(0.9, 0.0)[number % 2], seed=number + 1)
            about = {"cell": CELL, "number": number, "train_seconds": 2.0, "boundary": ["lr"] if number == 0 else []}
            contents.add(record_of(config, state=state, **about | told))
        return lay_out(spec), contents

    return make


def test_trials_are_those_that_the_search_was_told(address, searched):
    curve = {"curves": {"val/loss": [3.0, math.inf, 2.5]}, "metrics": {}}
    ends = [("completed", {"loss": 0.5}), ("collapsed", {"loss": 2.0}), ("pruned", curve), ("diverged", {})]
    plan, contents = searched("told", [*ends, ("failed", {"reason": "its worker was lost"})])
    assert export_searches(plan, contents, address) == (1, 5, 5)
    study = optuna.load_study(study_name=f"told/{CELL}/b0", storage=address)
    assert [direction.name for direction in study.directions] == ["MINIMIZE"] and study.metric_names == ["val/loss"]
    trials = study.trials
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL
    ]  # fmt: skip
    assert [trial.values for trial in trials] == [[0.5], [2.0], None, [WORST_LOSS], None]
    assert trials[0].intermediate_values == {1: 1.0, 2: 0.5} and trials[2].intermediate_values == {1: 3.0, 3: 2.5}
    records = list(contents.replicates.values())
    assert [trial.params for trial in trials] == [
        {name: record["config"][name] for name in NUISANCE} for record in records
    ]
    assert trials[0].distributions == {
        "lr": optuna.distributions.FloatDistribution(0.01, 1.0, log=True),
        "momentum": optuna.distributions.CategoricalDistribution([0.9, 0.0]),
    }
    assert {trial.duration.total_seconds() for trial in trials} == {2.0}
    first, last = trials[0].user_attrs, trials[-1].user_attrs
    assert first == {
        "trial_key": records[0]["trial_key"], "state": "completed", "cell": CELL, "epochs": 2, "seed": 1, "split_seed": 2,
        "at boundary": "lr", "val/loss": 0.5,
    }  # fmt: skip
    assert last["state"] == "failed" and last["reason"] == "its worker was lost"


def test_optunas_own_pictures_open_them_and_its_sampler_goes_on_as_ours(address, searched):
    ends = [("completed", {"loss": abs(number - 5.0)}) for number in range(8)]
    plan, contents = searched("pictures", ends, budget={"search_trials": 12, "startup_trials": 2})
    export_searches(plan, contents, address)
    seed = derive_seed(plan.spec.seed, "sampler", CELL, 0, 8, 0) % 2**32
    sampler = SAMPLERS["tpe"].build(seed)
    study = optuna.load_study(study_name=f"pictures/{CELL}/b0", storage=address, sampler=sampler)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    drawn = optuna.visualization.matplotlib.plot_optimization_history(study)
    assert list(drawn.collections[0].get_offsets()[:, 1]) == [abs(number - 5.0) for number in range(8)]
    bars = optuna.visualization.matplotlib.plot_param_importances(study).patches
    assert len(bars) == 2 and sum(bar.get_width() for bar in bars) == pytest.approx(1.0)
    assert len(optuna.visualization.matplotlib.plot_intermediate_values(study).lines) == 8
    plt.close("all")
    asked = study.ask(study.trials[0].distributions)
    suggested = suggest(plan.spec, {CELL: {}}, 0, list(contents.replicates.values()))
    assert (CELL, asked.params) == suggested


def test_again_it_adds_what_is_new_and_refuses_what_is_other(address, searched, record_of):
    ends = [("completed", {"loss": 1.0}), ("failed", {}), ("completed", {"loss": 2.0})]
    plan, contents = searched("again", ends)
    records = list(contents.replicates.values())
    begun = Contents(replicates={record["trial_key"]: record for record in records[:2]})
    assert export_searches(plan, begun, address) == (1, 2, 2)
    assert export_searches(plan, contents, address) == (1, 3, 1)
    assert export_searches(plan, contents, address) == (1, 3, 0)
    before = optuna.load_study(study_name=f"again/{CELL}/b0", storage=address).trials
    assert [trial.user_attrs["trial_key"] for trial in before] == [record["trial_key"] for record in records]
    contents.add({**records[1], "state": "completed", "metrics": {"val/loss": 3.0}})
    with pytest.raises(UserError, match=f"'again/{CELL}/b0' there holds other trials than the ledger"):
        export_searches(plan, contents, address)
    assert optuna.load_study(study_name=f"again/{CELL}/b0", storage=address).trials == before


def test_a_joint_search_has_its_objectives(address, searched):
    objectives = [{"name": "val/accuracy", "direction": "maximize"}, {"name": "flops", "direction": "minimize"}]
    ends = [
        ("completed", {"metrics": {"val/accuracy": 0.5, "val/loss": 1.0}, "flops": 9}),
        ("collapsed", {"metrics": {"val/accuracy": 0.1, "val/loss": 2.0}, "flops": 4}),
    ]
    plan, contents = searched("joint", ends, joint={"objectives": objectives, "confirm": 2})
    cells = [cell.name for cell in plan.cells]
    held = zip(cells, contents.replicates.values(), strict=False)
    contents = Contents(replicates={record["trial_key"]: {**record, "cell": cell} for cell, record in held})
    assert export_searches(plan, contents, address) == (1, 2, 2)
    study = optuna.load_study(study_name="joint/joint/b0", storage=address)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["val/accuracy", "flops"]
    assert [trial.params["cell"] for trial in study.trials] == cells[:2]
    # one that did not complete is told at the worst of the others
    assert [trial.values for trial in study.trials] == [[0.5, 9.0], [0.5, 9.0]]


def test_by_command(address, tmp_path, searched):
    plan, contents = searched("commanded", [("completed", {})])
    workspace = Workspace(tmp_path / "commanded")
    with Ledger(workspace.ledger) as ledger:
        for record in contents.replicates.values():
            ledger.append(record)
    workspace.freeze(plan.spec)
    done = fmm_study("export", str(workspace.root), "--optuna", address)
    assert done.returncode == 0, done.stderr
    assert f"optuna-dashboard {address}" in done.stdout and not workspace.tables.exists()
    assert f"commanded/{CELL}/b0" in optuna.get_all_study_names(address)
    wrong = fmm_study("export", str(workspace.root), "--optuna", "searches.db")
    assert wrong.returncode == 2 and wrong.stderr.startswith("fmm-study: --optuna 'searches.db': no address")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("searches.db", "no address of a database, such as sqlite:///FILE"),
        ("nosuch://host/name", "Can't load plugin"),
        ("sqlite:///{folder}/nowhere/x.db", "unable to open database file"),
        ("sqlite:///{folder}/other.db", "a database of something else than Optuna"),
    ],
)
def test_what_is_no_database_of_optunas_is_one_line(given, told, tmp_path, searched):
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(UserError, match=told) as caught:
        export_searches(*searched("refused", [("completed", {})]), given.format(folder=tmp_path))
    assert "\n" not in str(caught.value) and (tmp_path / "other.db").read_bytes() == before
