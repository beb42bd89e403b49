"""A conditional space of one's own: rebuilt from the ledger, tuned by Optuna, and every fault one line before a start."""

import json
import sys
import types

import pytest
from optuna.trial import FixedTrial

from search_spaces import SpecError
from search_spaces.load import parse_spec
from study.errors import UserError
from study.planning.plan import make_plan
from study.planning.search import suggest
from study.planning.space import ask, load_space
from study.planning.trying import check_space

TEXT = """
name: spaced
factors: {merge: [add, mul]}
fixed: {dataset: fake, depth: 8, width: 4, epochs: 2, batch_size: 16}
nuisance:
  lr: {low: 0.01, high: 1.0, log: true, default: 0.1}
  warmup_epochs: {low: 0.0, high: 1.0, default: 0.0}
  schedule: {choices: [cosine, constant]}
blocks: 2
budget: {search_trials: 9, startup_trials: 3}
space: own_space:chosen
"""
ADD, MUL = {"merge": "add"}, {"merge": "mul"}


def chosen(trial, cell):
    """Warm-up for products only, and only at high learning rates."""
    values = {"lr": trial.suggest_float("lr", 0.01, 1.0, log=True)}
    if cell["merge"] == "mul" and values["lr"] > 0.1:
        values["warmup_epochs"] = trial.suggest_float("warmup_epochs", 0.1, 1.0)
    return values


@pytest.fixture
def spec(monkeypatch):
    """A specification whose space is the function given (``chosen`` at first)."""
    module = types.ModuleType("own_space")
    monkeypatch.setitem(sys.modules, "own_space", module)
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "own_space,nowhere_space")

    def make(function=chosen, text=TEXT):
        load_space.cache_clear()
        module.chosen = function
        return parse_spec(text, "test")

    yield make
    load_space.cache_clear()


def rollout(spec, cell, settings, told, trials, history=()):
    history = list(history)
    for _ in range(trials - len(history)):
        history.append(told(suggest(spec, {cell: settings}, 0, history)[1]))
    return history


@pytest.fixture
def told(config_of, record_of):
    def make(values):
        # mul wants a long warm-up: what is asked in some trials only is tuned as well
        loss = abs(values["lr"] - 0.5) + (1 - values["warmup_epochs"])
        return record_of(config_of(**values), state="completed", loss=loss)

    return make


def test_a_hyperparameter_exists_only_where_its_branch_is_taken(spec, told):
    own = spec()
    histories = {name: rollout(own, name, cell, told, 9) for name, cell in (("add", ADD), ("mul", MUL))}
    assert all(record["config"]["warmup_epochs"] == 0 for record in histories["add"])
    for record in histories["mul"]:
        high = record["config"]["lr"] > 0.1
        assert (record["config"]["warmup_epochs"] >= 0.1) == high
    assert {record["config"]["schedule"] for history in histories.values() for record in history} == {"cosine"}
    # the first trials are the same where the questions are
    lr = [[record["config"]["lr"] for record in history[:3]] for history in histories.values()]
    assert lr[0] == lr[1]


def test_the_search_is_rebuilt_from_the_ledger(spec, told):
    own = spec()
    whole = rollout(own, "mul", MUL, told, 9)
    for cut in (1, 3, 6):
        again = json.loads(json.dumps(whole[:cut]))
        assert [r["config"] for r in rollout(own, "mul", MUL, told, 9, again)] == [r["config"] for r in whole]


def test_what_was_told_steers_it(spec, told):
    own = spec()
    start = rollout(own, "mul", MUL, told, 5)
    worse = json.loads(json.dumps(start))
    for record in worse:
        record["metrics"]["val/loss"] *= -1
    assert suggest(own, {"mul": MUL}, 0, start) != suggest(own, {"mul": MUL}, 0, worse)


def test_recorded_values_give_back_the_same_questions(spec):
    own = spec()
    trial = FixedTrial({"lr": 0.5, "warmup_epochs": 0.25, "schedule": "cosine"})
    assert ask(own, trial, MUL) == {"lr": 0.5, "warmup_epochs": 0.25, "schedule": "cosine"}
    assert set(trial.distributions) == {"lr", "warmup_epochs"}


def unknown(trial, cell):
    return {"lrr": trial.suggest_float("lrr", 0.1, 0.2)}


def outside(trial, cell):
    return {"lr": trial.suggest_float("lr", 2.0, 3.0)}


def renamed(trial, cell):
    return {"lr": 10 ** trial.suggest_float("log_lr", -2, 0)}


def no_mapping(trial, cell):
    return [0.1]


def raising(trial, cell):
    return {"lr": cell["mrege"]}


def wrong_choice(trial, cell):
    return {"schedule": "linear"}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (unknown, "returns 'lrr', which nuisance does not declare (did you mean 'lr'?)"),
        (outside, "lies outside [0.01, 1]"),
        (renamed, "suggests 'log_lr'"),
        (no_mapping, "returns a list, not a mapping"),
        (raising, "raises KeyError: 'mrege'"),
        (wrong_choice, "schedule = 'linear' is none of ['cosine', 'constant']"),
        (None, "module 'own_space' has no function 'chosen'"),
    ],
)
def test_faults_are_one_line_and_stop_the_plan(spec, function, message):
    with pytest.raises(UserError) as caught:
        make_plan(spec(function))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_sound_space_passes_and_a_missing_module_is_named(spec):
    check_space(spec(), MUL)
    assert len(make_plan(spec()).cells) == 2
    with pytest.raises(UserError, match="no module 'nowhere_space'"):
        make_plan(spec(text=TEXT.replace("own_space", "nowhere_space")))


@pytest.mark.parametrize("text", ["space: own_space", "space: own space:f", "space: ':f'"])
def test_a_reference_is_a_module_and_a_function(text):
    with pytest.raises(SpecError, match="space"):
        parse_spec(TEXT.replace("space: own_space:chosen", text), "test")


def test_a_joint_search_has_no_space():
    joint = "joint: {objectives: [{name: val/loss, direction: minimize}, {name: flops, direction: minimize}]}"
    with pytest.raises(SpecError, match="space with joint"):
        parse_spec(f"{TEXT}{joint}\n", "test")
