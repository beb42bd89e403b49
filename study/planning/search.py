"""https://arxiv.org/abs/1907.10902 (Akiba et al. 2019): what Optuna suggests next, as a pure function of what it was told.

A suggestion depends on the results of the trials numbered before it in its own cell and block, and on a seed derived from
(study, cell, block, number); never on who finished first. So the same specification gives the same trials on one core, on
two, and after any crash: nothing of Optuna's is stored, its study is rebuilt from the ledger at every ask.
"""

import functools
import itertools
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from scipy.stats import qmc

from search_spaces import Choice, FloatRange, Levels, Spec
from study.errors import UserError
from study.planning import space
from study.planning.pareto import objectives
from study.registry import SAMPLERS, SCHEDULERS
from study.schema import ReplicateRecord
from study.seeding import derive_seed

# What Optuna is told of a trial that diverged or failed: finite, and worse than any loss that is not an explosion.
WORST_LOSS = 1e6
OBJECTIVE = "val/loss"
# What a stop curve holds where nothing is stopped: no loss reaches it, and being finite it can stand in a trial key.
NEVER = sys.float_info.max
# The share of a (log) range at either end within which a winner is flagged.
BOUNDARY = 0.1
# The name under which a joint search chooses among cells; no setting is called so.
_CELL = "cell"
_REDRAWS = 16
# How often a space of one's own is tried before a study starts, so that its branches are seen.
_SPACE_CHECKS = 16

optuna.logging.set_verbosity(optuna.logging.WARNING)


@SAMPLERS.register(
    "tpe",
    formula="tree-structured Parzen estimator, multivariate",
    source="https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization",
)
def tpe(seed: int, **settings: Any) -> optuna.samplers.BaseSampler:
    """Optuna's TPE. Start-up points come from the shared Sobol set, so the sampler has none of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, **{"n_startup_trials": 0, "multivariate": True, **settings})


@SAMPLERS.register("random", formula="independent uniform draws", source="https://jmlr.org/papers/v13/bergstra12a.html")
def random_sampler(seed: int, **settings: Any) -> optuna.samplers.BaseSampler:
    """Random search."""
    return optuna.samplers.RandomSampler(seed=seed, **settings)


@SCHEDULERS.register("none", formula="never stop early", source="this file")
def never_stop(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """No stop curve."""
    return ()


@SCHEDULERS.register(
    "median",
    formula="stop when worse than the median of earlier trials",
    source="https://doi.org/10.1145/3097983.3098043",
)
def median_stop(curves: Sequence[Sequence[float]], min_trials: int = 4, grace_epochs: int = 1) -> tuple[float, ...]:
    """The median validation loss of the earlier full trials of this cell and block, by epoch; ``NEVER`` in the grace.

    A loss that is not finite counts as worse than any other.
    """
    if len(curves) < min_trials:
        return ()
    worst = [[value if math.isfinite(value) else math.inf for value in curve] for curve in curves]
    medians = [min(statistics.median(values), NEVER) for values in zip(*worst, strict=True)]
    return tuple(NEVER if epoch < grace_epochs else median for epoch, median in enumerate(medians))


def check_parts(spec: Spec) -> None:
    """Build the sampler and the scheduler of ``spec`` once. Raises ``UserError`` for an unknown name or setting."""
    builds: list[tuple[str, Any, Callable[[Any], Any]]] = [
        ("sampler", spec.sampler, lambda named: SAMPLERS[named.name].build(0, **named.settings)),
        ("scheduler", spec.scheduler, lambda named: SCHEDULERS[named.name].build([], **named.settings)),
    ]
    for kind, named, build in builds:
        try:
            build(named)
        except TypeError as error:
            raise UserError(f"{kind}.settings of {named.name!r}: {error}") from None


def suggest(
    spec: Spec, cell: str, block: int, history: Sequence[ReplicateRecord], settings: Mapping[str, Any] | None = None
) -> Levels | None:
    """Nuisance values of trial number ``len(history)`` of ``cell`` and ``block``; ``None`` when none are left untried.

    The first ``startup_trials`` come from one scrambled Sobol set a block, shared by all cells; the sampler's follow. A
    point already tried in this cell and block is not suggested again. ``settings`` are the cell's, for a space of one's own.
    """
    number = len(history)
    tried = [{name: record["config"][name] for name in spec.nuisance} for record in history]
    for redraw in range(_REDRAWS):
        if spec.space:
            point = _draw_freely(spec, cell, block, redraw, history, settings or {})
        else:
            point = _draw(spec, cell, block, number, redraw, history)
        if point not in tried:
            return point
    if spec.space:  # what is left of a function's space is not known
        return None
    left = [point for point in _all_points(spec) if point not in tried]
    generator = np.random.default_rng(derive_seed(spec.seed, "rest", cell, block, number))
    return left[int(generator.integers(len(left)))] if left else None


def suggest_jointly(
    spec: Spec, cells: Sequence[str], block: int, history: Sequence[ReplicateRecord]
) -> tuple[str, Levels] | None:
    """Cell and nuisance values of trial number ``len(history)`` of a joint search in ``block``; ``None`` when none are left.

    The cell is one choice among those of the spec's grids, so that no combination outside them is ever suggested (an
    attention ``none`` has no form). A pair already tried in this block is not suggested again.
    """
    number = len(history)
    tried = [{_CELL: record["cell"], **{name: record["config"][name] for name in spec.nuisance}} for record in history]
    for redraw in range(_REDRAWS):
        point = _draw_jointly(spec, cells, block, number, redraw, history)
        if point not in tried:
            return str(point.pop(_CELL)), point
    left = [(cell, p) for p in _all_points(spec) for cell in cells if {_CELL: cell, **p} not in tried]
    generator = np.random.default_rng(derive_seed(spec.seed, "rest", "joint", block, number))
    return left[int(generator.integers(len(left)))] if left else None


def stop_curve(spec: Spec, history: Sequence[ReplicateRecord]) -> tuple[float, ...]:
    """Validation loss by epoch above which the next trial of this cell and block is pruned; empty: never."""
    full = [r["curves"][OBJECTIVE] for r in history if r["state"] in ("completed", "collapsed")]
    curve: tuple[float, ...] = SCHEDULERS[spec.scheduler.name].build(full, **spec.scheduler.settings)
    return curve


def winner(spec: Spec, history: Sequence[ReplicateRecord]) -> tuple[Levels, bool]:
    """Nuisance values of least validation loss among survivors, and whether these are the defaults for want of any."""
    survivors = [r for r in history if r["state"] in ("completed", "collapsed") and OBJECTIVE in r["metrics"]]
    if not survivors:
        return {name: nuisance.default for name, nuisance in spec.nuisance.items()}, bool(history)
    best = min(survivors, key=lambda record: record["metrics"][OBJECTIVE])
    return {name: best["config"][name] for name in spec.nuisance}, False


def at_boundary(spec: Spec, values: Levels) -> tuple[str, ...]:
    """Names of the hyperparameters whose value lies in the outer tenth of its range at either end."""
    flagged = []
    for name, nuisance in spec.nuisance.items():
        if isinstance(nuisance, FloatRange):
            share = _to_unit(nuisance, float(values[name]))
            if not BOUNDARY <= share <= 1 - BOUNDARY:
                flagged.append(name)
    return tuple(flagged)


def _draw(spec: Spec, cell: str, block: int, number: int, redraw: int, history: Sequence[ReplicateRecord]) -> Levels:
    if number < spec.budget.startup_trials and redraw == 0:
        # one more than needed, rounded up to the power of two that keeps a Sobol set balanced
        count = max(1, math.ceil(math.log2(spec.budget.startup_trials)))
        points = _sobol(len(spec.nuisance), derive_seed(spec.seed, "sobol", block), count)
        units = zip(spec.nuisance.items(), points[number], strict=True)
        return {name: _from_unit(nuisance, float(unit)) for (name, nuisance), unit in units}
    sampler = SAMPLERS[spec.sampler.name].build(
        derive_seed(spec.seed, "sampler", cell, block, number, redraw) % 2**32, **spec.sampler.settings
    )
    study = optuna.create_study(direction="minimize", sampler=sampler)
    distributions = {name: _distribution(nuisance) for name, nuisance in spec.nuisance.items()}
    study.add_trials([_told(record, distributions) for record in history])
    params: Levels = study.ask(fixed_distributions=distributions).params
    return params


@functools.lru_cache(maxsize=4096)
def _sobol(dimensions: int, seed: int, count: int) -> NDArray[np.float64]:
    """2^count scrambled Sobol points; kept, for all cells of a block ask for them."""
    return np.asarray(qmc.Sobol(dimensions, rng=seed).random_base2(count))


def _draw_freely(
    spec: Spec, cell: str, block: int, redraw: int, history: Sequence[ReplicateRecord], settings: Mapping[str, Any]
) -> Levels:
    """A point of the space that a function defines; what is not known before it runs has no Sobol set.

    Start-up points are random, from one seed a block and number for all cells: where two cells ask the same questions, they
    have the same answers.
    """
    number = len(history)
    if number < spec.budget.startup_trials:
        seed = derive_seed(spec.seed, "space", block, number, redraw) % 2**32
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        seed = derive_seed(spec.seed, "sampler", cell, block, number, redraw) % 2**32
        sampler = SAMPLERS[spec.sampler.name].build(seed, **spec.sampler.settings)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for record in history:
        asked = optuna.trial.FixedTrial({name: record["config"][name] for name in spec.nuisance})
        space.ask(spec, asked, settings)
        study.add_trial(_told(record, asked.distributions))
    return space.ask(spec, study.ask(), settings)


def check_space(spec: Spec, settings: Mapping[str, Any]) -> None:
    """Ask a space of one's own a few random times for a cell's ``settings``. Raises ``UserError`` as ``space.ask`` does."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(_SPACE_CHECKS if spec.space else 0):
        space.ask(spec, study.ask(), settings)


def _draw_jointly(
    spec: Spec, cells: Sequence[str], block: int, number: int, redraw: int, history: Sequence[ReplicateRecord]
) -> Levels:
    assert spec.joint is not None
    if number < spec.budget.startup_trials and redraw == 0:
        count = max(1, math.ceil(math.log2(spec.budget.startup_trials)))
        seed = derive_seed(spec.seed, "sobol", "joint", block)
        units = qmc.Sobol(1 + len(spec.nuisance), rng=seed).random_base2(count)[number]
        cell = cells[min(int(units[0] * len(cells)), len(cells) - 1)]
        pairs = zip(spec.nuisance.items(), units[1:], strict=True)
        return {_CELL: cell, **{name: _from_unit(nuisance, float(unit)) for (name, nuisance), unit in pairs}}
    sampler = SAMPLERS[spec.sampler.name].build(
        derive_seed(spec.seed, "sampler", "joint", block, number, redraw) % 2**32, **spec.sampler.settings
    )
    directions = [objective.direction for objective in spec.joint.objectives]
    study = optuna.create_study(directions=directions, sampler=sampler)
    distributions: dict[str, BaseDistribution] = {_CELL: CategoricalDistribution(list(cells))}
    distributions |= {name: _distribution(nuisance) for name, nuisance in spec.nuisance.items()}
    reached = [values for record in history if (values := objectives(spec, record))] or [(0.0,) * len(directions)]
    # what did not complete is told as bad as the worst in every objective: finite, and on their scale
    worst = [
        (max if direction == "minimize" else min)(column)
        for direction, column in zip(directions, zip(*reached, strict=True), strict=True)
    ]
    for record in history:
        params = {_CELL: record["cell"], **{name: record["config"][name] for name in spec.nuisance}}
        told = objectives(spec, record) or worst
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=told))
    point: Levels = study.ask(fixed_distributions=distributions).params
    return point


def _told(record: ReplicateRecord, distributions: Mapping[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    """A trial as Optuna is told of it: a pruned one as PRUNED with its curve, a lost one at a finite worst value."""
    params = {name: record["config"][name] for name in distributions}
    if record["state"] == "pruned":
        curve = {epoch: value for epoch, value in enumerate(record["curves"][OBJECTIVE]) if math.isfinite(value)}
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED,
            params=params,
            distributions=dict(distributions),
            intermediate_values=curve,
        )
    value = (
        record["metrics"].get(OBJECTIVE, WORST_LOSS) if record["state"] in ("completed", "collapsed") else WORST_LOSS
    )
    return optuna.trial.create_trial(params=params, distributions=dict(distributions), value=value)


def _distribution(nuisance: FloatRange | Choice) -> BaseDistribution:
    if isinstance(nuisance, Choice):
        return CategoricalDistribution(nuisance.choices)
    return FloatDistribution(nuisance.low, nuisance.high, log=nuisance.log)


def _from_unit(nuisance: FloatRange | Choice, unit: float) -> Any:
    if isinstance(nuisance, Choice):
        return nuisance.choices[min(int(unit * len(nuisance.choices)), len(nuisance.choices) - 1)]
    if nuisance.log:
        low, high = math.log(nuisance.low), math.log(nuisance.high)
        return min(max(math.exp(low + unit * (high - low)), nuisance.low), nuisance.high)
    return nuisance.low + unit * (nuisance.high - nuisance.low)


def _to_unit(nuisance: FloatRange, value: float) -> float:
    if nuisance.log:
        return math.log(value / nuisance.low) / math.log(nuisance.high / nuisance.low)
    return (value - nuisance.low) / (nuisance.high - nuisance.low)


def _all_points(spec: Spec) -> list[Levels]:
    """Every point of a finite space; empty where a hyperparameter is continuous."""
    choices = [n.choices for n in spec.nuisance.values() if isinstance(n, Choice)]
    if len(choices) < len(spec.nuisance):
        return []
    return [dict(zip(spec.nuisance, point, strict=True)) for point in itertools.product(*choices)]
