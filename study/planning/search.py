"""What Optuna suggests next, as a pure function of the trials before it.

A suggestion depends on the results of the earlier trials of its own search (a cell and block; in a joint search a block),
and on a seed derived from study, search and number; never on who finished first. So a specification gives the same trials
on one core, on two, and after any crash: nothing of Optuna's is stored, its study is rebuilt from the ledger at every ask.

Source: https://arxiv.org/abs/1907.10902
"""

import functools
import itertools
import math
import statistics
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces import Choice, FloatRange, Levels, Nuisance, Spec
from study.planning import space
from study.planning.lazily import optuna
from study.planning.pareto import objectives
from study.registry import SAMPLERS, SCHEDULERS
from study.schema import TRAINED, ReplicateRecord
from study.seeding import derive_seed

# What Optuna is told of a trial that diverged or failed: finite, and worse than any loss that is not an explosion.
WORST_LOSS = 1e6
OBJECTIVE = "val/loss"
# What a stop curve holds where nothing is stopped: no loss reaches it, and being finite it can stand in a trial key.
NEVER = sys.float_info.max
# The share of a (log) range at either end within which a winner is flagged.
BOUNDARY = 0.1
# The parameter by which a joint search chooses the cell; no setting has this name.
_CELL = "cell"
_REDRAWS = 16

# Settings of cells by name.
Cells = Mapping[str, Mapping[str, Any]]
Domain = Mapping[str, Nuisance]


@SAMPLERS.register(
    "tpe",
    formula="tree-structured Parzen estimator, multivariate",
    source="https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization",
)
def tpe(seed: int, **settings: Any) -> Any:
    """Optuna's TPE. Start-up points come from the shared Sobol set, so the sampler has none of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, **{"n_startup_trials": 0, "multivariate": True, **settings})


@SAMPLERS.register("random", formula="independent uniform draws", source="https://jmlr.org/papers/v13/bergstra12a.html")
def random_sampler(seed: int, **settings: Any) -> Any:
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
    """The median validation loss of the earlier full trials of this search, per epoch; ``NEVER`` in the grace epochs.

    A loss that is not finite counts as worse than any other.
    """
    if len(curves) < min_trials:
        return ()
    worst = [[value if math.isfinite(value) else math.inf for value in curve] for curve in curves]
    medians = [min(statistics.median(values), NEVER) for values in zip(*worst, strict=True)]
    return tuple(NEVER if epoch < grace_epochs else median for epoch, median in enumerate(medians))


def suggest(spec: Spec, cells: Cells, block: int, history: Sequence[ReplicateRecord]) -> tuple[str, Levels] | None:
    """Cell and nuisance values of trial number ``len(history)`` of a search; ``None`` when none are left untried.

    ``cells`` is the one cell that is tuned; in a joint search it is all of them, and the cell is one more categorical, so
    that no combination of levels outside the grids is suggested. The first ``startup_trials`` come from one scrambled Sobol
    set per block, shared by all cells; the sampler's follow. A point already tried in this search is not suggested again.
    """
    domain = _domain(spec, cells)
    tried = [_point(record, domain) for record in history]
    for redraw in range(_REDRAWS):
        point = _draw(spec, cells, domain, block, redraw, history)
        if point not in tried:
            break
    else:
        left = [point for point in _all_points(spec, domain) if point not in tried]
        if not left:
            return None
        generator = np.random.default_rng(derive_seed(spec.seed, "rest", _scope(spec, cells), block, len(history)))
        point = left[int(generator.integers(len(left)))]
    cell = point.pop(_CELL) if spec.joint else next(iter(cells))
    return str(cell), point


def num_points(spec: Spec, cells: Cells) -> float:
    """How many different trials the search over ``cells`` has; infinite, or not known, where it is not finite by itself."""
    if spec.space:
        return math.inf
    return math.prod(len(n.choices) if isinstance(n, Choice) else math.inf for n in _domain(spec, cells).values())


def stop_curve(spec: Spec, history: Sequence[ReplicateRecord]) -> tuple[float, ...]:
    """Validation loss, per epoch, above which the next trial of this search is pruned; empty: never."""
    full = [r["curves"][OBJECTIVE] for r in history if r["state"] in TRAINED]
    curve: tuple[float, ...] = SCHEDULERS[spec.scheduler.name].build(full, **spec.scheduler.settings)
    return curve


def winner(spec: Spec, history: Sequence[ReplicateRecord]) -> tuple[Levels, bool]:
    """Nuisance values of least validation loss among survivors; the defaults, and true, where trials left none."""
    survivors = [r for r in history if r["state"] in TRAINED and OBJECTIVE in r["metrics"]]
    if not survivors:
        return spec.defaults, bool(history)
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


def _scope(spec: Spec, cells: Cells) -> str:
    """The part of a seed that tells one search of a block from the others."""
    return "joint" if spec.joint else next(iter(cells))


def _domain(spec: Spec, cells: Cells) -> Domain:
    return {_CELL: Choice(choices=list(cells)), **spec.nuisance} if spec.joint else spec.nuisance


def _point(record: ReplicateRecord, domain: Domain) -> Levels:
    return {name: record["cell"] if name == _CELL else record["config"][name] for name in domain}


def _draw(
    spec: Spec, cells: Cells, domain: Domain, block: int, redraw: int, history: Sequence[ReplicateRecord]
) -> Levels:
    number, settings = len(history), next(iter(cells.values()))
    if number < spec.budget.startup_trials and redraw == 0 and not spec.space:
        shared = ("sobol", "joint", block) if spec.joint else ("sobol", block)
        # rounded up to the power of two that keeps a Sobol set balanced
        count = max(1, math.ceil(math.log2(spec.budget.startup_trials)))
        units = _sobol(len(domain), derive_seed(spec.seed, *shared), count)[number]
        return {name: from_unit(domain[name], float(unit)) for name, unit in zip(domain, units, strict=True)}
    study = optuna.create_study(directions=directions(spec), sampler=_sampler(spec, cells, block, number, redraw))
    study.add_trials(as_trials(spec, cells, history))
    if spec.space:
        return space.ask(spec, study.ask(), settings)
    drawn: Levels = study.ask(fixed_distributions=_distributions(domain)).params
    return drawn


def directions(spec: Spec) -> list[str]:
    """``minimize`` or ``maximize``, of each value that a search is told."""
    return [objective.direction for objective in spec.joint.objectives] if spec.joint else ["minimize"]


def as_trials(spec: Spec, cells: Cells, history: Sequence[ReplicateRecord]) -> list[Any]:
    """The trials of a search as Optuna is told of them: ``optuna.trial.FrozenTrial``, with their distributions."""
    domain, settings = _domain(spec, cells), next(iter(cells.values()))
    distributions, trials = _distributions(domain), []
    for record, outcome in zip(history, _outcomes(spec, history), strict=True):
        point, asked = _point(record, domain), distributions
        if spec.space:
            again = optuna.trial.FixedTrial(point)
            space.ask(spec, again, settings)
            asked = again.distributions
        params = {name: point[name] for name in asked}
        trials.append(optuna.trial.create_trial(params=params, distributions=asked, **outcome))
    return trials


def _sampler(spec: Spec, cells: Cells, block: int, number: int, redraw: int) -> Any:
    if number < spec.budget.startup_trials and spec.space:
        # What a function asks is not known before it runs, so there is no Sobol set. One seed per block and number: where
        # two cells ask the same questions, they get the same answers.
        seed = derive_seed(spec.seed, "space", block, number, redraw)
        return optuna.samplers.RandomSampler(seed=seed % 2**32)
    seed = derive_seed(spec.seed, "sampler", _scope(spec, cells), block, number, redraw)
    return SAMPLERS[spec.sampler.name].build(seed % 2**32, **spec.sampler.settings)


@functools.lru_cache(maxsize=4096)
def _sobol(dimensions: int, seed: int, count: int) -> NDArray[np.float64]:
    """2^count scrambled Sobol points; kept, for all cells of a block ask for them."""
    # here, because it takes most of a second, and only who suggests needs it
    from scipy.stats import qmc

    return np.asarray(qmc.Sobol(dimensions, rng=seed).random_base2(count))


def _outcomes(spec: Spec, history: Sequence[ReplicateRecord]) -> list[dict[str, Any]]:
    """What Optuna is told of each trial: a pruned one as PRUNED with its curve, a lost one at a finite worst value.

    In a joint search that is the worst value reached in each objective, so that it is on their scale.
    """
    if spec.joint:
        values = [objectives(spec, record) for record in history]
        columns = zip(*filter(None, values), strict=True)
        directions = [objective.direction for objective in spec.joint.objectives]
        worst = [max(c) if d == "minimize" else min(c) for d, c in zip(directions, columns, strict=False)]
        return [{"values": reached or worst or [0.0] * len(directions)} for reached in values]
    told: list[dict[str, Any]] = []
    for record in history:
        if record["state"] == "pruned":
            curve = {epoch: value for epoch, value in enumerate(record["curves"][OBJECTIVE]) if math.isfinite(value)}
            told.append({"state": optuna.trial.TrialState.PRUNED, "intermediate_values": curve})
        else:
            ended = record["state"] in TRAINED
            told.append({"value": record["metrics"].get(OBJECTIVE, WORST_LOSS) if ended else WORST_LOSS})
    return told


def _distributions(domain: Domain) -> dict[str, Any]:
    return {name: _distribution(values) for name, values in domain.items()}


def _distribution(nuisance: Nuisance) -> Any:
    if isinstance(nuisance, Choice):
        return optuna.distributions.CategoricalDistribution(nuisance.choices)
    return optuna.distributions.FloatDistribution(nuisance.low, nuisance.high, log=nuisance.log)


def from_unit(nuisance: Nuisance, unit: float) -> Any:
    """The value at a share ``unit`` (0 to 1) of a (log) range, or of a list of choices."""
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


def _all_points(spec: Spec, domain: Domain) -> list[Levels]:
    """Every point of a finite space; empty where a hyperparameter is continuous or a function defines the space."""
    # a joint search's cell, the first of the domain, varies fastest
    names = [*spec.nuisance, *(name for name in domain if name == _CELL)]
    choices = [values.choices for name in names if isinstance(values := domain[name], Choice)]
    if spec.space or len(choices) < len(names):
        return []
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*choices)]
