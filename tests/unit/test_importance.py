"""Importance of hyperparameters: what was planted is found by every evaluator, and what cannot be said is said."""

import itertools
import math

import numpy as np
import pytest
from book import Book, synthetic_spec
from optuna.importance import FanovaImportanceEvaluator

import study.planning.importance as study_importance
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from study.planning.importance import EVALUATORS, importances

MERGES = ("add", "mul")


def study(loss, *, blocks=3, trials=24, datasets=("digits",), state=lambda *_: "completed", seed=0, **changes):
    """Search trials of both merges: lr and optimiser drawn, validation loss ``loss(log10 lr, optimiser, merge)``."""
    book, rng = Book(), np.random.default_rng(seed)
    for dataset, block, merge, number in itertools.product(datasets, range(blocks), MERGES, range(trials)):
        lr, optimiser = float(10 ** rng.uniform(-2, 0)), str(rng.choice(["sgd", "adam"]))
        ended = state(merge, number)
        value = {} if ended == "diverged" else {"val/loss": loss(math.log10(lr), optimiser, merge)}
        book.replicate(
            merge, 8, block, phase="search", number=number, state=ended, metrics=value,
            trial_key=f"{dataset}{merge}{block}/{number}", config={"dataset": dataset, "lr": lr, "optimiser": optimiser},
        )  # fmt: skip
    for key, record in book.contents.replicates.items():
        record["cell"] = f"{record['config']['dataset']}{record['config']['merge']}"
        assert key == record["trial_key"]
    factors = [{"merge": list(MERGES), "dataset": list(datasets)}]
    spec = synthetic_spec(factors=factors, fixed={"depth": 8}, control=None, blocks=blocks, **changes)
    return Inputs(spec=spec, contents=book.contents, importance_of=importances)


def table(inputs):
    return build_table(inputs, "hyperparameter_importance").to_pylist()


def shares(rows, evaluator, dataset="digits"):
    return {r["parameter"]: r["importance"] for r in rows if (r["evaluator"], r["dataset"]) == (evaluator, dataset)}


def test_every_evaluator_finds_what_was_planted():
    rows = table(study(lambda lr, optimiser, merge: (lr + 1) ** 2 + 0.02 * (merge == "mul")))
    assert {row["evaluator"] for row in rows} == set(EVALUATORS) == {"fanova", "ped_anova", "mean_decrease_impurity"}
    for evaluator in EVALUATORS:
        found = shares(rows, evaluator)
        assert next(iter(found)) == "lr" and found["lr"] > 0.6, evaluator
        assert set(found) == {"lr", "optimiser", "merge"} and sum(found.values()) == pytest.approx(1)
    roles = {row["parameter"]: (row["role"], row["n_spread"], row["spread_over"], row["n_trials"]) for row in rows}
    assert roles["lr"] == ("nuisance", 3, "blocks", 144) and roles["merge"][0] == "factor"
    assert all(row["sd"] >= 0 and not row["note"] for row in rows)


def test_an_additive_truth_has_fanovas_shares_and_the_same_seed_the_same_table():
    # variances of the terms: 4/12, uniform over two decades, and 1/4, a step of 1; Optuna's fANOVA itself is .05 off, since it
    # integrates a category over the whole cube of its indicators
    inputs = study(lambda lr, optimiser, merge: lr + (merge == "mul"), trials=100, blocks=2)
    found = shares(table(inputs), "fanova")
    assert found["lr"] == pytest.approx(4 / 7, abs=0.08) and found["merge"] == pytest.approx(3 / 7, abs=0.08)
    assert found["optimiser"] < 0.02
    again = study(lambda lr, optimiser, merge: lr + (merge == "mul"), trials=100, blocks=2)
    assert table(again) == table(inputs)


def test_shallow_forests_agree_with_optunas_default(monkeypatch):
    monkeypatch.setattr(study_importance, "_NUM_SEEDS", 1)
    inputs = study(lambda lr, optimiser, merge: (lr + 1) ** 2 + 0.3 * (merge == "mul"), blocks=1, trials=24)
    ours = shares(table(inputs), "fanova")
    monkeypatch.setitem(EVALUATORS, "fanova", lambda seed: FanovaImportanceEvaluator(seed=seed))
    theirs = shares(table(Inputs(spec=inputs.spec, contents=inputs.contents, importance_of=importances)), "fanova")
    assert ours == pytest.approx(theirs, abs=0.03)


def test_one_block_spreads_over_seeds_and_datasets_are_averaged_not_mixed():
    # losses of two datasets lie on scales of their own, so each is evaluated alone
    rows = table(study(lambda lr, optimiser, merge: (lr + 1) ** 2, datasets=("digits", "fake"), blocks=1, trials=12))
    assert {row["spread_over"] for row in rows if row["dataset"] != "all datasets"} == {"seeds"}
    pooled = shares(rows, "fanova", "all datasets")
    each = [shares(rows, "fanova", name)["lr"] for name in ("digits", "fake")]
    assert pooled["lr"] == pytest.approx(np.mean(each)) and "dataset" not in pooled
    (row,) = [r for r in rows if (r["dataset"], r["evaluator"], r["parameter"]) == ("all datasets", "fanova", "lr")]
    assert (row["n_spread"], row["spread_over"], row["sd"]) == (2, "datasets", pytest.approx(np.std(each, ddof=1)))


def test_diverged_trials_count_as_the_worst_and_do_not_drown_the_rest():
    inputs = study(
        lambda lr, optimiser, merge: 1.0 + (optimiser == "adam"),
        state=lambda merge, number: "diverged" if merge == "mul" and number % 2 else "completed",
    )
    found = shares(table(inputs), "mean_decrease_impurity")
    assert found["optimiser"] > 0.3 and found["merge"] > 0.05


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": lambda *_: 0.5}, "all search trials reached the same loss"),
        ({"state": lambda *_: "diverged"}, "0 search trials with a loss, two are needed"),
        ({"state": lambda *_: "pruned"}, "0 search trials with a loss, two are needed"),
        (
            {"state": lambda merge, n: "completed" if (merge, n) == ("add", 0) else "failed"},
            "1 search trials with a loss",
        ),
    ],
    ids=["equal", "diverged", "pruned", "one"],
)
def test_what_cannot_be_evaluated_is_a_note(changes, told):
    rows = table(study(**({"loss": lambda lr, *_: lr, "trials": 4, "blocks": 2} | changes)))
    assert [row["parameter"] for row in rows] == [""] * 3
    assert all(row["importance"] is None and row["note"].startswith(f"block 0: {told}") for row in rows)


def test_constant_columns_are_left_out_and_nothing_searched_gives_an_empty_table():
    inputs = study(lambda lr, *_: lr)
    for record in inputs.contents.replicates.values():
        record["config"]["optimiser"] = "sgd"
    assert set(shares(table(inputs), "fanova")) == {"lr", "merge"}
    for record in inputs.contents.replicates.values():
        record["config"] |= {"lr": 0.1, "merge": "add"}
    fixed = Inputs(spec=inputs.spec, contents=inputs.contents, importance_of=importances)
    assert table(fixed)[0]["note"].startswith("block 0: nothing varied between the search trials")
    assert table(Inputs(spec=inputs.spec, contents=Book().contents, importance_of=importances)) == []
    assert table(Inputs(spec=inputs.spec, contents=inputs.contents)) == []
