"""On which hyperparameters and factors the validation loss of a search depends: Optuna's importances.

Three evaluators, pinned by name: fANOVA, PED-ANOVA (https://arxiv.org/abs/2304.10255: what tells the best tenth of the trials
from all) and the mean decrease in impurity of a random forest. Each block is a search with its own importances (shares of 1,
over main effects); a dataset's are their means, with their spread. A sampler chose the points of search trials, so this says
what mattered where it searched, and is no effect. A log range is given as logarithms: the forests integrate over the plain
range, of which [0.1, 1] is nine tenths of [0.01, 1].

Source: https://proceedings.mlr.press/v32/hutter14.html
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from search_spaces import FloatRange, Levels, Spec
from study.errors import UserError
from study.planning.lazily import optuna
from study.planning.search import OBJECTIVE
from study.schema import TRAINED, ReplicateRecord
from study.seeding import derive_seed

# fANOVA's cost grows with the square of a tree's leaves; 16 trees of depth 5 give the shares of 64 deep ones within 0.01.
_FOREST = {"n_trees": 16, "max_depth": 5}
_MAX_TRIALS, _MAX_BLOCKS, _NUM_SEEDS = 200, 10, 5

EVALUATORS: dict[str, Callable[[int], Any]] = {
    "fanova": lambda seed: optuna.importance.FanovaImportanceEvaluator(**_FOREST, seed=seed),
    "ped_anova": lambda _: optuna.importance.PedAnovaImportanceEvaluator(),
    "mean_decrease_impurity": lambda seed: optuna.importance.MeanDecreaseImpurityImportanceEvaluator(
        **_FOREST, seed=seed
    ),
}


def importances(spec: Spec, records: Sequence[ReplicateRecord]) -> list[dict[str, Any]]:
    """A row per dataset, evaluator and parameter, from the search trials among ``records``.

    ``role`` is "nuisance" or "factor"; attention and its form are one factor, and a factor of one level is left out. The
    spread ``sd`` of ``n_spread`` values is over blocks, or, of one block, over seeds of the forest. Diverged trials count as
    the worst loss of their block; pruned and failed ones are left out. Where nothing can be said (one trial, equal losses)
    the row has no parameter and a ``note``. At most 200 trials (a seeded choice) of each of the first ten blocks are read, so
    that the cost does not grow with the study: about 0.1 s per block, dataset and forest.
    """
    by_dataset: dict[str, dict[int, list[ReplicateRecord]]] = {}
    for record in records:
        if record["phase"] == "search":
            blocks = by_dataset.setdefault(str(record["config"]["dataset"]), {})
            blocks.setdefault(record["block"], []).append(record)
    rows: list[dict[str, Any]] = []
    for dataset, blocks in by_dataset.items():
        searches = {block: _search(spec, dataset, block, blocks[block]) for block in sorted(blocks)[:_MAX_BLOCKS]}
        for evaluator in EVALUATORS:
            rows += _over_blocks(spec, dataset, evaluator, searches)
    return rows


def _over_blocks(spec: Spec, dataset: str, evaluator: str, searches: Mapping[int, Any]) -> Iterator[dict[str, Any]]:
    found: list[dict[str, float]] = []
    notes: list[str] = []
    for block, study in searches.items():
        for seed in range(_NUM_SEEDS if len(searches) == 1 else 1):
            key = derive_seed(spec.seed, "importance", dataset, block, seed)
            shares = study if isinstance(study, str) else _evaluate(study, evaluator, key % 2**32)
            if isinstance(shares, str):
                notes.append(f"block {block}: {shares}")
                break
            found.append(shares)
    num_trials = sum(len(study.trials) for study in searches.values() if not isinstance(study, str))
    head = {"dataset": dataset, "evaluator": evaluator, "n_trials": num_trials, "n_spread": len(found)}
    head |= {"spread_over": "seeds" if len(searches) == 1 else "blocks", "note": "; ".join(notes)}
    if not found:
        yield head | {"parameter": "", "role": "", "importance": None, "sd": None}
    for name in dict.fromkeys(itertools.chain.from_iterable(found)):
        # what did not vary in a block has no share there
        values = np.array([shares.get(name, 0.0) for shares in found])
        yield head | {
            "parameter": name,
            "role": "nuisance" if name in spec.nuisance else "factor",
            "importance": float(values.mean()),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        }


def _evaluate(study: Any, evaluator: str, seed: int) -> dict[str, float] | str:
    """Parameter -> its share; or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            shares = optuna.importance.get_param_importances(study, evaluator=EVALUATORS[evaluator](seed))
        except (RuntimeError, ValueError) as error:
            return f"{evaluator} gives none: {' '.join(str(error).split())}"
    # an evaluator that finds nothing divides nothing
    return {name: float(share) for name, share in shares.items() if math.isfinite(share)} or f"{evaluator} gives none"


def _search(spec: Spec, dataset: str, block: int, records: Sequence[ReplicateRecord]) -> Any:
    """A block's trials as a study of Optuna's; or why nothing can be said of them."""
    points, losses = _told(spec, records)
    if len(points) > _MAX_TRIALS:
        generator = np.random.default_rng(derive_seed(spec.seed, "importance", dataset, block))
        chosen = sorted(generator.choice(len(points), _MAX_TRIALS, replace=False).tolist())
        points, losses = [points[i] for i in chosen], [losses[i] for i in chosen]
    if len(points) < 2:
        return f"{len(points)} search trials with a loss, two are needed"
    if len(set(losses)) == 1:
        return "all search trials reached the same loss"
    try:
        distributions = {
            name: known
            for name in points[0]
            if (known := _distribution(spec, name, [point[name] for point in points])) is not None
        }
    except UserError as error:  # where there is no Optuna
        return str(error)
    if not distributions:
        return "nothing varied between the search trials"
    study = optuna.create_study(direction="minimize")
    for point, loss in zip(points, losses, strict=True):
        params = {name: _scaled(spec, name, point[name]) for name in distributions}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=loss))
    return study


def _told(spec: Spec, records: Sequence[ReplicateRecord]) -> tuple[list[Levels], list[float]]:
    """Parameters and losses of the trials that ended; a diverged one has the worst loss of the others."""
    ended = [record for record in records if record["state"] in (*TRAINED, "diverged")]
    reached = [r["metrics"].get(OBJECTIVE, math.nan) if r["state"] != "diverged" else math.nan for r in ended]
    if not any(map(math.isfinite, reached)):
        return [], []
    worst = max(filter(math.isfinite, reached))
    losses = [loss if math.isfinite(loss) else worst for loss in reached]
    return [_parameters(spec, record["config"]) for record in ended], losses


def _parameters(spec: Spec, config: Mapping[str, Any]) -> Levels:
    """Factors but the dataset, then nuisance hyperparameters; ``se.mul`` for an attention and its form."""
    levels = {name: config.get(name) for name in spec.factor_names() if name != "dataset"}
    form = levels.get("attention_form")
    if "attention" in levels and form is not None:
        del levels["attention_form"]
        levels["attention"] = levels["attention"] if form == "none" else f"{levels['attention']}.{form}"
    named: Levels = {name: "none" if level is None else level for name, level in levels.items()}
    return named | {name: config[name] for name in spec.nuisance}


def _distribution(spec: Spec, name: str, values: Sequence[Any]) -> Any | None:
    """The distribution of a parameter's values; ``None`` where all are equal."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return None
    nuisance = spec.widest(name) if name in spec.nuisance else None
    if isinstance(nuisance, FloatRange):
        return optuna.distributions.FloatDistribution(
            _scaled(spec, name, nuisance.low), _scaled(spec, name, nuisance.high)
        )
    return optuna.distributions.CategoricalDistribution(distinct)


def _scaled(spec: Spec, name: str, value: Any) -> Any:
    """A value of a log range as its logarithm, any other as it is."""
    nuisance = spec.widest(name) if name in spec.nuisance else None
    return math.log(value) if isinstance(nuisance, FloatRange) and nuisance.log else value
