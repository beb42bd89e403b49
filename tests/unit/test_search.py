"""Suggestions as a pure function of history, winners, stop curves; and that TPE is worth its name."""

import hashlib
import json
import math
import statistics
from types import SimpleNamespace

import optuna
import pytest

from study.errors import UserError
from study.planning import search
from study.planning.plan import make_plan
from study.planning.search import NEVER, WORST_LOSS, at_boundary, stop_curve, winner
from study.planning.trying import check_parts

DISCRETE = {"lr": {"choices": [0.1, 0.2, 0.4]}, "momentum": {"choices": [0.0, 0.9]}}


@pytest.fixture(scope="module")
def told(config_of, record_of):
    """A trial's record from its values."""

    def make(values, loss=1.0, state="completed", **changes):
        return record_of(config_of(**values), state=state, loss=loss, **changes)

    return make


def suggest(spec, cell, block, history):
    """The nuisance values suggested to one cell."""
    suggested = search.suggest(spec, {cell: {}}, block, history)
    assert suggested is None or suggested[0] == cell
    return suggested and suggested[1]


def rollout(spec, cell, block, told, objective, trials):
    """Ask and tell in turn; the suggestions."""
    history, points = [], []
    for _ in range(trials):
        point = suggest(spec, cell, block, history)
        if point is None:
            break
        points.append(point)
        history.append(told(point, **objective(point)))
    return points


def bowl(point):
    return {"loss": (math.log10(point["lr"]) + 1.3) ** 2 + point["weight_decay"] * 50}


def test_a_suggestion_is_a_function_of_its_history_alone(spec_of, told):
    spec = spec_of(budget={"search_trials": 7, "startup_trials": 2})
    first = rollout(spec, "a", 0, told, bowl, 7)
    rollout(spec, "b", 1, told, bowl, 3)  # whatever else was asked in between
    optuna.create_study().ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    assert rollout(spec, "a", 0, told, bowl, 7) == first
    assert len({tuple(point.values()) for point in first}) == 7
    for point in first:
        assert 0.01 <= point["lr"] <= 1 and 0 <= point["weight_decay"] <= 0.01
    # through JSON and back, as the ledger has it, the history is the same
    history = [told(point, **bowl(point)) for point in first[:5]]
    assert suggest(spec, "a", 0, json.loads(json.dumps(history))) == first[5]


def test_what_a_trial_was_told_matters_to_the_sampler(spec_of, told):
    spec = spec_of(budget={"search_trials": 9, "startup_trials": 4})
    start = rollout(spec, "a", 0, told, bowl, 4)
    assert start == rollout(spec, "a", 0, told, lambda p: {"loss": -bowl(p)["loss"]}, 4)  # not to the start
    up = [told(point, **bowl(point)) for point in start]
    down = [told(point, loss=-bowl(point)["loss"]) for point in start]
    assert suggest(spec, "a", 0, up) != suggest(spec, "a", 0, down)


def test_the_start_is_shared_by_the_cells_of_a_block_and_by_no_other_block(spec_of, told):
    spec = spec_of(budget={"search_trials": 8, "startup_trials": 6})
    starts = {
        (cell, block): rollout(spec, cell, block, told, bowl, 8) for cell in ("a", "b") for block in (0, 1)
    }  # fmt: skip
    for block in (0, 1):
        assert starts["a", block][:6] == starts["b", block][:6]
        assert starts["a", block][6:] != starts["b", block][6:]
    assert not [point for point in starts["a", 0] if point in starts["a", 1]]
    assert rollout(spec_of(seed=8), "a", 0, told, bowl, 2) != starts["a", 0][:2]


def test_the_start_fills_the_space_evenly_on_the_log_scale(spec_of, told):
    spec = spec_of(budget={"search_trials": 8, "startup_trials": 8})
    points = rollout(spec, "a", 3, told, bowl, 8)
    # a Sobol set of eight has one point in each eighth of every axis
    eighths = [int((math.log10(point["lr"]) + 2) / 2 * 8) for point in points]
    assert sorted(eighths) == list(range(8))
    assert sorted(int(point["weight_decay"] / 0.01 * 8) for point in points) == list(range(8))


@pytest.mark.parametrize("startup", [0, 2, 6])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_finite_space_is_tried_once_over_and_then_is_exhausted(spec_of, told, startup, sampler):
    spec = spec_of(nuisance=DISCRETE, budget={"search_trials": 9, "startup_trials": startup}, sampler={"name": sampler})
    points = rollout(spec, "a", 0, told, lambda p: {"loss": p["lr"]}, 9)
    assert sorted((p["lr"], p["momentum"]) for p in points) == [(lr, m) for lr in (0.1, 0.2, 0.4) for m in (0.0, 0.9)]


def test_a_space_part_finite_and_part_continuous_has_no_end(spec_of, told):
    spec = spec_of(
        nuisance={"momentum": {"choices": [0.0, 0.9]}, "lr": {"low": 0.1, "high": 1.0, "default": 0.5}},
        budget={"search_trials": 12, "startup_trials": 3},
    )
    points = rollout(spec, "a", 0, told, lambda p: {"loss": p["lr"]}, 12)
    assert len({(p["momentum"], p["lr"]) for p in points}) == 12 and {p["momentum"] for p in points} == {0.0, 0.9}


@pytest.mark.parametrize("state", ["diverged", "failed", "pruned"])
def test_a_search_of_nothing_but_losses_goes_on(spec_of, told, state):
    spec = spec_of(budget={"search_trials": 5, "startup_trials": 1})
    assert len(rollout(spec, "a", 0, told, lambda p: {"state": state}, 5)) == 5


def spied(monkeypatch, spec, history):
    """What Optuna is told of ``history``."""
    trials, create = [], optuna.create_study

    def spy(**values):
        study = create(**values)
        add = study.add_trials
        study.add_trials = lambda given: (trials.extend(given), add(given))
        return study

    monkeypatch.setattr(optuna, "create_study", spy)
    suggest(spec, "a", 0, history)
    return trials


def test_what_optuna_is_told(spec_of, told, monkeypatch):
    spec = spec_of(budget={"search_trials": 9, "startup_trials": 0})
    points = [{"lr": 0.1 + index / 10, "weight_decay": 0.001} for index in range(6)]
    history = [
        told(points[0], loss=0.25),
        told(points[1], loss=2.5, state="collapsed"),
        told(points[2], state="diverged"),
        told(points[3], state="failed"),
        told(points[4], state="pruned", curves={"val/loss": [3.0, math.nan, 2.0]}),
        told(points[5], metrics={}),  # its validation loss was not finite
    ]
    trials = spied(monkeypatch, spec, history)
    complete, pruned = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED
    assert [trial.state for trial in trials] == [complete] * 4 + [pruned, complete]
    assert [trial.value for trial in trials if trial.state == complete] == [0.25, 2.5] + [WORST_LOSS] * 3
    assert trials[4].intermediate_values == {0: 3.0, 2: 2.0}
    assert [trial.params for trial in trials] == points
    assert math.isfinite(WORST_LOSS)


def test_the_winner_is_the_best_survivor(spec_of, told):
    spec = spec_of()
    points = [{"lr": 0.1 + index / 10, "weight_decay": 0.001 * index} for index in range(5)]
    history = [
        told(points[0], loss=0.5),
        told(points[1], loss=0.2, state="collapsed"),
        told(points[2], state="diverged"),
        told(points[3], state="pruned", metrics={"val/loss": 0.01}),
        told(points[4], loss=0.3),
    ]
    assert winner(spec, history) == (points[1], False)
    assert winner(spec, [history[4], history[0]]) == (points[4], False)


@pytest.mark.parametrize("states", [["diverged"], ["failed", "pruned", "diverged"]])
def test_without_survivors_the_default_is_confirmed_and_flagged(spec_of, told, states):
    history = [told({"lr": 0.3, "weight_decay": 0.002}, state=state) for state in states]
    assert winner(spec_of(), history) == ({"lr": 0.1, "weight_decay": 0.001}, True)


def test_without_a_search_the_default_is_what_was_asked_for(spec_of):
    assert winner(spec_of(), []) == ({"lr": 0.1, "weight_decay": 0.001}, False)


@pytest.mark.parametrize(
    ("lr", "weight_decay", "flagged"),
    [
        (0.1, 0.005, ()),
        (0.01, 0.005, ("lr",)),
        (1.0, 0.005, ("lr",)),
        # a tenth of two decades is a fifth of one
        (10**-1.81, 0.005, ("lr",)),
        (10**-1.79, 0.005, ()),
        (10**-0.21, 0.005, ()),
        (10**-0.19, 0.005, ("lr",)),
        (0.1, 0.00099, ("weight_decay",)),
        (0.1, 0.00101, ()),
        (1.0, 0.01, ("lr", "weight_decay")),
    ],
)
def test_a_value_in_the_outer_tenth_is_flagged(spec_of, lr, weight_decay, flagged):
    assert at_boundary(spec_of(), {"lr": lr, "weight_decay": weight_decay}) == flagged


def test_a_choice_has_no_boundary(spec_of):
    assert at_boundary(spec_of(nuisance=DISCRETE), {"lr": 0.1, "momentum": 0.0}) == ()


def with_curve(told, curve, state="completed"):
    return told({"lr": 0.2, "weight_decay": 0.001}, state=state, curves={"val/loss": curve})


def test_the_median_stop_curve(spec_of, told, config_of):
    spec = spec_of(scheduler={"name": "median", "settings": {"min_trials": 3, "grace_epochs": 1}})
    curves = [[9.0, 3.0, 1.0], [8.0, 5.0, 2.0], [7.0, 4.0, 9.0]]
    history = [with_curve(told, curve) for curve in curves]
    assert stop_curve(spec, history[:2]) == ()
    assert stop_curve(spec, history) == (NEVER, 4.0, 2.0)
    pruned, lost = with_curve(told, [0.1], "pruned"), told({"lr": 0.2}, state="failed")
    assert stop_curve(spec, [*history, pruned, lost]) == (NEVER, 4.0, 2.0)  # full trials only
    # the curve is part of the settings of the next trial, which need a key
    assert len(config_of(stop_curve=stop_curve(spec, history)).trial_key) == 16


def test_a_loss_that_is_not_finite_is_worse_than_any_in_the_median(spec_of, told, config_of):
    spec = spec_of(scheduler={"name": "median", "settings": {"min_trials": 2, "grace_epochs": 0}})
    nan, inf = [math.nan, 1.0, math.nan], [math.inf, 3.0, math.inf]
    for order in ([nan, inf, [5.0, 2.0, 4.0]], [[5.0, 2.0, 4.0], nan, inf]):
        curve = stop_curve(spec, [with_curve(told, values) for values in order])
        assert curve == (NEVER, 2.0, NEVER)
        assert config_of(stop_curve=curve).trial_key


def test_without_a_scheduler_nothing_is_stopped(spec_of, told):
    assert stop_curve(spec_of(), [with_curve(told, [1.0, 1.0])] * 9) == ()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"sampler": {"name": "tpee"}}, ["unknown sampler 'tpee'", "did you mean 'tpe'"]),
        ({"sampler": {"name": "tpe", "settings": {"multivar": True}}}, ["sampler.settings", "'tpe'", "multivar"]),
        ({"scheduler": {"name": "mediam"}}, ["unknown scheduler 'mediam'", "did you mean 'median'"]),
        ({"scheduler": {"name": "median", "settings": {"min": 3}}}, ["scheduler.settings", "'median'", "'min'"]),
    ],
)
def test_unknown_parts_are_refused(spec_of, changes, parts):
    with pytest.raises(UserError) as caught:
        check_parts(spec_of(**changes))
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value)


def test_tpe_finds_a_planted_optimum_better_than_random_search(spec_of, told):
    def late_losses(sampler, seed):
        spec = spec_of(seed=seed, budget={"search_trials": 20, "startup_trials": 6}, sampler={"name": sampler})
        return [bowl(point)["loss"] for point in rollout(spec, "a", 0, told, bowl, 20)[12:]]

    tpe, random = ([statistics.median(late_losses(name, seed)) for seed in range(4)] for name in ("tpe", "random"))
    assert sum(t < r for t, r in zip(tpe, random, strict=True)) >= 3
    assert statistics.mean(tpe) < 0.7 * statistics.mean(random)


def test_the_objective_is_validation_loss():
    assert search.OBJECTIVE == "val/loss"


def frozen_space(trial, cell):
    return {"lr": trial.suggest_float("lr", 0.01, 1.0, log=True)}


CONTINUOUS = {"lr": {"low": 0.01, "high": 1.0, "log": True, "default": 0.1}, "momentum": {"choices": [0.0, 0.9]}}
JOINT = [{"name": "val/loss", "direction": "minimize"}, {"name": "flops", "direction": "minimize"}]
FROZEN = [
    ("continuous", {"nuisance": CONTINUOUS}, "df866ff72a51"),
    ("finite", {"nuisance": DISCRETE}, "db2d72b38eda"),
    ("joint", {"nuisance": CONTINUOUS, "joint": {"objectives": JOINT}}, "b99e3b31a734"),
    ("joint and finite", {"nuisance": DISCRETE, "joint": {"objectives": JOINT}}, "65cd6d60012a"),
    ("own space", {"nuisance": CONTINUOUS, "space": f"{__name__}:frozen_space"}, "4d30022da531"),
]


@pytest.mark.parametrize(("kind", "changes", "expected"), FROZEN, ids=[kind for kind, *_ in FROZEN])
def test_suggestions_are_frozen(spec_of, told, kind, changes, expected):
    """A study that was begun with an older version goes on as it would have with that one."""
    spec = spec_of(budget={"search_trials": 12, "startup_trials": 3}, sampler={"name": "random"}, **changes)
    found = []
    for cells in [{"a": {}, "b": {}}] if spec.joint else [{"a": {}}, {"b": {}}]:
        for block in (0, 1):
            history = []
            while len(history) < 12 and (suggested := search.suggest(spec, cells, block, history)):
                cell, point = suggested
                found.append([cell, *(float(f"{value:.9g}") for value in point.values())])
                history.append(told(point, cell=cell, number=len(history)))
    digest = hashlib.blake2b(json.dumps(found).encode(), digest_size=6).hexdigest()
    assert digest == expected, found[:4]


def test_the_boundary_of_a_range_that_does_not_begin_at_zero(spec_of):
    spec = spec_of(nuisance={"lr": {"low": 1.0, "high": 2.0, "default": 1.5}})
    assert [at_boundary(spec, {"lr": lr}) for lr in (1.05, 1.15, 1.5, 1.85, 1.95)] == [("lr",), (), (), (), ("lr",)]


def test_tpe_is_multivariate_without_start_up_trials_of_its_own_and_takes_settings(monkeypatch):
    asked = []
    monkeypatch.setattr(search.optuna.samplers, "TPESampler", lambda **settings: asked.append(settings))
    search.tpe(3)
    search.tpe(4, multivariate=False, n_ei_candidates=8)
    assert asked == [
        {"seed": 3, "n_startup_trials": 0, "multivariate": True},
        {"seed": 4, "n_startup_trials": 0, "multivariate": False, "n_ei_candidates": 8},
    ]


def test_a_samplers_settings_reach_it(spec_of, monkeypatch):
    given = []

    def noting(seed, **settings):
        given.append(settings)
        return search.random_sampler(seed)

    monkeypatch.setattr(search, "SAMPLERS", {"random": SimpleNamespace(build=noting)})
    spec = spec_of(budget={"search_trials": 3, "startup_trials": 0}, sampler={"name": "random", "settings": {"own": 1}})
    assert search.suggest(spec, {"a": {}}, 0, []) and given == [{"own": 1}]


def test_a_joint_search_tells_a_lost_trial_at_the_worst_value_reached(spec_of, told):
    objectives = [{"name": "val/loss", "direction": "minimize"}, {"name": "params", "direction": "maximize"}]
    spec = spec_of(nuisance=CONTINUOUS, joint={"objectives": objectives})
    point = {"lr": 0.1, "momentum": 0.0}
    lost = [told(point, state="failed", number=0)]
    assert search._outcomes(spec, lost) == [{"values": [0.0, 0.0]}]
    reached = [
        told(point, loss=loss, number=i) | {"params": params} for i, (loss, params) in enumerate([(0.5, 30), (2.0, 90)])
    ]
    values = [outcome["values"] for outcome in search._outcomes(spec, [*reached, *lost])]
    assert [list(value) for value in values] == [[0.5, 30], [2.0, 90], [2.0, 30]]


@pytest.mark.parametrize(
    ("sampler", "told"),
    [
        ({"name": "tpe", "settings": {"gamma": 5}}, "sampler.settings.gamma = 5 of 'tpe': TypeError"),
        ({"name": "tpe", "settings": {"weights": "x"}}, "sampler.settings.weights = 'x' of 'tpe': TypeError"),
        ({"name": "tpe", "settings": {"n_ei_candidates": 0}}, "sampler.settings.n_ei_candidates = 0 of 'tpe'"),
        ({"name": "tpe", "settings": {"n_ei_candidates": 2.5}}, "n_ei_candidates = 2.5 of 'tpe': expected int"),
        ({"name": "tpe", "settings": {"n_startup_trials": "10"}}, "n_startup_trials = '10' of 'tpe': expected int"),
        ({"name": "tpe", "settings": {"n_startup_trials": 30, "gamma": "x"}}, "sampler.settings.gamma = 'x' of 'tpe'"),
        (
            {"name": "tpe", "settings": {"multivariate": "no"}},
            "sampler.settings.multivariate = 'no' of 'tpe': expected bool",
        ),
        ({"name": "tpe", "settings": {"seed": 3}}, "sampler.settings.seed = 3 of 'tpe': TypeError"),
        ({"name": "tpe", "settings": {"n_candidates": 3}}, "sampler.settings.n_candidates = 3 of 'tpe': TypeError"),
        ({"name": "random", "settings": {"x": None}}, "sampler.settings.x = None"),
    ],
    ids=str,
)
def test_a_sampler_is_asked_once_at_plan(spec_of, sampler, told):
    """Optuna looks at most settings after the start-up trials only, and at the type of some never."""
    with pytest.raises(UserError) as caught:
        make_plan(spec_of(sampler=sampler))
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"min_trials": "many"}, "scheduler.settings.min_trials = 'many' of 'median': expected int"),
        ({"grace_epochs": 1.5}, "scheduler.settings.grace_epochs = 1.5 of 'median': expected int"),
        ({"min_trials": 10**9}, "scheduler.settings.min_trials = 1000000000 of 'median': expected at most 10,000"),
        ({"patience": 3}, "scheduler.settings.patience = 3 of 'median': TypeError"),
    ],
    ids=str,
)
def test_so_is_a_scheduler(spec_of, settings, told):
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        make_plan(spec_of(scheduler={"name": "median", "settings": settings}))


def test_good_settings_pass_and_change_no_suggestion(spec_of):
    good = {"n_ei_candidates": 48, "n_startup_trials": 5, "multivariate": False, "prior_weight": 1}
    assert make_plan(spec_of(sampler={"name": "tpe", "settings": good})).spec.sampler.settings == good
