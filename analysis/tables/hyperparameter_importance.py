"""https://proceedings.mlr.press/v32/hutter14.html: the table of hyperparameter importance, by dataset and over datasets.

The numbers come from Optuna's evaluators, which this package may not import: the driver hands over what computes them.
"""

from typing import Any

import numpy as np

from analysis.inputs import Inputs
from analysis.stats.pooling import ALL_DATASETS
from analysis.stats.spread import sd
from analysis.words.columns import count, number, shared, text
from analysis.words.rows import Rows
from study.registry import TABLES


@TABLES.register(
    "hyperparameter_importance",
    formula="importance for the validation loss of search trials (fANOVA, PED-ANOVA, mean decrease in impurity), shares of "
    "main effects, mean and spread over blocks (one block: over seeds; all datasets: over datasets); describes where was "
    "searched, and is no effect",
    source="https://proceedings.mlr.press/v32/hutter14.html",
    title="Importance of hyperparameters and factors",
    place=4.4,
    optional=True,
    columns=(
        *shared("study dataset"),
        text("evaluator", "Evaluator"),
        text("parameter", "Parameter"),
        text("role", "Role"),
        number("importance", "share of 1", "Importance"),
        number("sd", "share of 1", "Spread"),
        count("n_spread", "Number"),
        text("spread_over", "over"),
        *shared("n_trials note"),
    ),
    main="dataset evaluator parameter role importance sd spread_over n_spread n_trials note",
    row="one dataset, evaluator and parameter: share of the validation loss's variation over search trials (PED-ANOVA: of "
    "what tells the best tenth); over datasets the mean of theirs",
)
def hyperparameter_importance_rows(inputs: Inputs) -> Rows:
    """Most important first within a dataset and evaluator; empty where nothing was searched or nothing computes them."""
    rows = inputs.importances
    rows = [*rows, *_over_datasets(rows)]
    order = {key: i for i, key in enumerate(dict.fromkeys((row["dataset"], row["evaluator"]) for row in rows))}
    return sorted(rows, key=lambda row: (order[row["dataset"], row["evaluator"]], -(row["importance"] or 0.0)))


def _over_datasets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the datasets of a study of several. Losses of different datasets are never put into one evaluation."""
    if len({row["dataset"] for row in rows}) < 2:
        return []
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["importance"] is not None:
            groups.setdefault((row["evaluator"], row["parameter"], row["role"]), []).append(row)
    pooled = []
    for (evaluator, parameter, role), members in groups.items():
        values = np.array([row["importance"] for row in members])
        named = {"dataset": ALL_DATASETS, "evaluator": evaluator, "parameter": parameter, "role": role}
        numbers = {"importance": float(values.mean()), "sd": sd(values)}
        counts = {
            "n_spread": len(values),
            "spread_over": "datasets",
            "n_trials": sum(row["n_trials"] for row in members),
        }
        pooled.append(named | numbers | counts | {"note": ""})
    return pooled
