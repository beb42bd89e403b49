"""Hyperparameter importance, by dataset and over datasets.

The numbers come from Optuna's evaluators. This package may not import Optuna, so the caller hands over what computes them.
Source: https://proceedings.mlr.press/v32/hutter14.html
"""

from analysis.inputs import Inputs
from analysis.stats.pooling import ALL_DATASETS
from analysis.stats.spread import mean, sd
from analysis.words.columns import count, number, shared, text
from analysis.words.rows import Rows, distinct, grouped
from study.registry import TABLES


@TABLES.register(
    "hyperparameter_importance",
    formula="importance for the validation loss of search trials (fANOVA, PED-ANOVA, mean decrease in impurity), shares of "
    "main effects, mean and spread over blocks (one block: over seeds; all datasets: over datasets); describes where was "
    "searched, and is no effect",
    source="https://proceedings.mlr.press/v32/hutter14.html",
    title="Importance of hyperparameters and factors",
    place=4.4,
    columns=(
        *shared("study dataset"),
        text("evaluator", "Evaluator", meaning="how importance is computed"),
        text("parameter", "Parameter", meaning="hyperparameter or factor"),
        text("role", "Role", meaning="nuisance (tuned) or factor"),
        number(
            "importance",
            "share of 1",
            "Importance",
            meaning="share of the variation of validation loss over search trials",
        ),
        number("sd", "share of 1", "Spread", meaning="standard deviation of it, over what spread_over names"),
        count("n_spread", "Number", meaning="how many blocks, seeds or datasets the mean is over"),
        text("spread_over", "over", meaning="what the mean is over: blocks, seeds or datasets"),
        *shared("n_trials note"),
    ),
    main="dataset evaluator parameter role importance sd spread_over n_spread n_trials note",
    row="one dataset, evaluator and parameter: share of the validation loss's variation over search trials (PED-ANOVA: of "
    "what tells the best tenth); over datasets the mean of theirs",
)
def hyperparameter_importance_rows(inputs: Inputs) -> Rows:
    """Most important first within a dataset and evaluator; empty where nothing was searched or nothing computes them."""
    rows = [*inputs.importances, *_over_datasets(inputs.importances)]
    groups = grouped(rows, "dataset", "evaluator").values()
    return [row for same in groups for row in sorted(same, key=lambda row: -(row["importance"] or 0.0))]


def _over_datasets(rows: Rows) -> Rows:
    """Means over the datasets of a study of several. Losses of different datasets are never put into one evaluation."""
    if len(distinct(rows, "dataset")) < 2:
        return []
    known = [row for row in rows if row["importance"] is not None]
    pooled = []
    for (evaluator, parameter, role), members in grouped(known, "evaluator", "parameter", "role").items():
        values = [row["importance"] for row in members]
        named = {"dataset": ALL_DATASETS, "evaluator": evaluator, "parameter": parameter, "role": role, "note": ""}
        numbers = {"importance": mean(values), "sd": sd(values), "n_spread": len(values), "spread_over": "datasets"}
        pooled.append(named | numbers | {"n_trials": sum(row["n_trials"] for row in members)})
    return pooled
