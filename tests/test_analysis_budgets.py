"""Shares of the epochs: verdicts again at each, smoothness at matched accuracy along them, and along a training itself."""

import math

import numpy as np
import pytest
from test_analysis_book import EXCESS, JACOBIAN, Book, find, synthetic_spec
from test_analysis_claims import SPREAD, claims_of, study

from analysis.budgets import at_share, short_shares
from analysis.crossing import value_at
from analysis.tables import Inputs, build_table

BUDGET = {"search_trials": 2, "startup_trials": 1, "shortened": [0.25, 0.5]}
FIXED = {"dataset": "digits", "epochs": 12}
FACTORS = [{"merge": ["add", "add_alias", "mul"], "depth": [8]}]
LEVELS = {0.25: 0, 0.5: 1, 1.0: 2}


def inputs_of(book, **changes):
    given = {"factors": FACTORS, "blocks": 10, "budget": BUDGET, "fixed": FIXED} | changes
    return Inputs(spec=synthetic_spec(**given), contents=book.contents, chance={"digits": 0.1})


def table(book, name, **changes):
    return build_table(inputs_of(book, **changes), name)


def train(book, merge, block, share, accuracy, statistics, loss=1.0, depth=8, state="completed", **given):
    """One training at a share of 12 epochs: confirmed at 1, else shortened."""
    epochs = round(12 * share)
    phase = "confirm" if share == 1 else "short"
    key = book.replicate(
        merge, depth, block, phase=phase, state=state, epochs=epochs, config={"epochs": epochs},
        trial_key=f"{merge}/{depth}/{block}/{share}",
        metrics={"test/accuracy": accuracy, "val/accuracy": accuracy, "train/loss": loss}, **given,
    )  # fmt: skip
    if statistics:
        book.measure(key, "input_jacobian", statistics)
    return key


# --- verdicts at a share of the epochs


def shortened(full=0.03, half=0.0):
    """The synthetic study of ten blocks, better by ``full`` in the end and by ``half`` after half of the epochs."""
    book = study(accuracy=full, jacobian=-0.4)
    for key, record in book.contents.replicates.items():
        record["config"]["epochs"] = record["epochs"] = 12
        book.measure(key, "path", {EXCESS: 1.0})
    for block in range(10):
        for merge, by in (("add", 0.0), ("add_alias", 0.0), ("mul", half)):
            noise = 0.0 if merge == "add" else SPREAD[block]
            jacobian = 1.0 - 0.4 * (merge == "mul") + 10 * noise
            train(book, merge, block, 0.5, 0.93 + by + noise, {JACOBIAN: jacobian})
    return book


def test_each_share_is_judged_as_the_study_is():
    book = shortened()
    rows = table(book, "budget_verdicts", budget=BUDGET | {"shortened": [0.5]}).to_pylist()
    found = [(r["claim"], r["share"], r["verdict"], r["full_verdict"], r["agrees"], r["n_pairs"]) for r in rows]
    assert found == [
        ("C3", 0.5, "supported", "supported", True, 10),
        ("C3", 1.0, "supported", "supported", True, 10),
        ("C4", 0.5, "refuted", "supported", False, 10),
        ("C4", 1.0, "supported", "supported", True, 10),
    ]
    assert [r["effect"] for r in rows if r["claim"] == "C4"] == pytest.approx([0.0, 0.03])
    assert rows[2]["reason"].startswith("At level")


def test_shortened_trainings_are_in_no_confirm_analysis():
    with_short, without = shortened(half=-0.5), study(accuracy=0.03, jacobian=-0.4)
    ours, theirs = claims_of(with_short), claims_of(without)
    assert ours == theirs
    for name in ("effects", "differences", "cells", "claim_parts"):
        a, b = table(with_short, name), table(without, name)
        shared = [column for column in a.column_names if column not in ("epochs_confirm", "measure_seconds")]
        kept = [row for row in a.select(shared).to_pylist() if EXCESS not in str(row.get("outcome"))]
        assert kept == b.select(shared).to_pylist(), name


def test_a_share_not_run_waits_and_a_study_without_shares_has_no_table():
    book = shortened()
    rows = table(book, "budget_verdicts").to_pylist()
    quarter = [row for row in rows if row["share"] == 0.25]
    assert {row["verdict"] for row in quarter} == {"undecided"} and {row["n_pairs"] for row in quarter} == {0}
    assert {row["reason"] for row in quarter} == {"The A/A control has not run yet."}
    assert table(book, "budget_verdicts", budget={**BUDGET, "shortened": []}).num_rows == 0
    assert table(Book(), "budget_verdicts").num_rows == 6  # two claims, three shares


def test_shares_are_those_of_the_cell_where_epochs_are_a_factor():
    book = Book()
    for epochs in (10, 20):
        for share in (0.5, 1.0):
            given = {"phase": "confirm" if share == 1 else "short", "config": {"epochs": round(share * epochs)}}
            key = book.replicate("add", 8, 0, trial_key=f"{epochs}/{share}", **given)
            book.contents.replicates[key]["cell"] = f"add,{epochs}"
    factors = [{"merge": ["add"], "epochs": [10, 20]}]
    inputs = inputs_of(book, factors=factors, fixed={"dataset": "digits", "depth": 8}, claims={}, control=None)
    # 10 of 20 is a half, though 10 is also the whole of the other cell
    assert short_shares(inputs) == {"10/0.5": 0.5, "20/0.5": 0.5}
    trials = at_share(inputs, 0.5).trials.to_pylist()
    assert [(r["trial_key"], r["phase"], r["epochs_setting"]) for r in trials] == [
        ("10/0.5", "confirm", 10), ("20/0.5", "confirm", 20),
    ]  # fmt: skip
    assert at_share(inputs, 0.25).trials.num_rows == 0


# --- interpolation


def test_values_on_a_rising_path_are_those_of_numpy():
    generator = np.random.default_rng(1)
    for _ in range(50):
        x, y = np.sort(generator.random(5)), generator.random(5)
        level = generator.uniform(x[0], x[-1])
        assert value_at(np.array(level), x, y) == pytest.approx(np.interp(level, x, y))
        falling = value_at(np.array(level), x[::-1], y[::-1])
        assert falling == pytest.approx(np.interp(level, x, y))


@pytest.mark.parametrize(
    ("level", "x", "y", "expected"),
    [
        (0.5, [0.0, 1.0, 0.0], [0.0, 2.0, 9.0], 1.0),  # the first time
        (0.5, [0.0, math.nan, 1.0], [0.0, 7.0, 2.0], 1.0),  # a point that is not there
        (0.5, [0.0, 0.4, 1.0], [0.0, math.nan, 2.0], 1.0),
        (0.5, [0.5, 0.5], [1.0, 2.0], 1.5),  # a line in the level
        (0.5, [math.nan, 0.5], [1.0, 2.0], 2.0),  # one point alone
        (0.6, [math.nan, 0.5], [1.0, 2.0], math.nan),
        (1.5, [0.0, 1.0], [0.0, 2.0], math.nan),  # nothing is extrapolated
        (-0.1, [0.0, 1.0], [0.0, 2.0], math.nan),
        (1.0, [0.0, 1.0], [0.0, 2.0], 2.0),  # the ends belong to it
        (math.nan, [0.0, 1.0], [0.0, 2.0], math.nan),
    ],
)
def test_values_on_paths_by_hand(level, x, y, expected):
    found = value_at(np.array([level]), np.array([x]), np.array([y]))
    assert found.shape == (1,)
    assert found[0] == pytest.approx(expected, nan_ok=True)


# --- matched accuracy

ACCURACY = {"add": (0.80, 0.90, 0.95), "add_alias": (0.80, 0.90, 0.95), "mul": (0.85, 0.93, 0.97)}
LOSS = {"add": (1.0, 0.5, 0.2), "add_alias": (1.0, 0.5, 0.2), "mul": (0.8, 0.4, 0.1)}


def matched(own=-0.1, slope=-2.0, accuracy=ACCURACY, blocks=10, depths=(8,), skip=()):
    """Statistics that fall with accuracy alike for all arms, but for ``own`` of ``mul``; shares of 12 epochs."""
    book = Book()
    for block in range(blocks):
        for depth in depths:
            for merge, reached in accuracy.items():
                noise = SPREAD[block % 10] if merge == "mul" else 0.0
                for share, k in LEVELS.items():
                    if (merge, block, share) in skip:
                        continue
                    value = 3.0 + slope * reached[k] + (own + noise) * (merge == "mul")
                    statistics = {JACOBIAN: value, EXCESS: math.exp(value)}
                    train(book, merge, block, share, reached[k], statistics, LOSS[merge][k], depth)
    return book


def matched_row(book, **wanted):
    given = {"matched_on": "val/accuracy", "arm": "merge=mul", "stratum": "all", "outcome": JACOBIAN} | wanted
    changes = given.pop("changes", {})
    return find(table(book, "matched_accuracy", **changes), **given)


def test_what_accuracy_explains_is_taken_out():
    row = matched_row(matched())
    # at .94 on both paths: -.1 is left; at the end mul is .02 more accurate, which alone makes -.04
    assert row["mean"] == pytest.approx(-0.1)
    assert row["unmatched_mean"] == pytest.approx(-0.14)
    assert (row["level_mean"], row["level_low"], row["level_high"]) == pytest.approx((0.94, 0.94, 0.94))
    assert (row["n_pairs"], row["n_not_estimable"], row["n_excluded"], row["status"]) == (10, 0, 0, "estimated")
    assert (row["label"], row["along"]) == ("associational", "budgets, annealed")
    assert row["ci_low"] < -0.1 < row["ci_high"] < 0 and row["p_sign_flip"] == 2 / 2**10
    assert row["sd"] == pytest.approx(np.std(SPREAD, ddof=1))


def test_ratios_are_matched_on_the_logarithm():
    claims = synthetic_spec().model_dump()["claims"]
    claims["C3"]["outcomes"][0]["name"] = EXCESS
    row = matched_row(matched(), outcome=EXCESS, changes={"claims": claims})
    assert (row["scale"], row["mean"]) == ("log ratio", pytest.approx(-0.1))


def test_training_loss_is_matched_on_its_logarithm_at_the_higher_last_loss():
    row = matched_row(matched(), matched_on="train/loss")
    assert (row["level_mean"], row["status"]) == (pytest.approx(0.2), "estimated")
    share = (math.log(0.2) - math.log(0.4)) / (math.log(0.1) - math.log(0.4))
    ours = -2.0 * (0.93 + share * 0.04) - 0.1
    assert row["mean"] == pytest.approx(ours + 2.0 * 0.95)


def test_no_overlap_is_not_estimable():
    book = matched(accuracy=ACCURACY | {"mul": (0.96, 0.97, 0.98)})
    row = matched_row(book)
    assert (row["status"], row["n_pairs"], row["n_not_estimable"]) == ("not_estimable", 0, 10)
    assert row["mean"] is None and row["ci_low"] is None and row["p_sign_flip"] is None and row["level_mean"] is None


def test_some_overlap_is_partly_estimable_and_counted():
    book = matched()
    for block in (0, 1):
        for share in (0.25, 0.5):
            book.contents.replicates[f"mul/8/{block}/{share}"]["metrics"]["val/accuracy"] = 0.965
    row = matched_row(book)
    assert (row["status"], row["n_pairs"], row["n_not_estimable"]) == ("partly", 8, 2)
    book = matched(skip=[("mul", 0, 0.5)])  # a training still to come: the line goes from a quarter to the whole
    assert matched_row(book)["n_pairs"] == 10


def test_failed_networks_are_no_points_and_no_pairs():
    book = matched(skip=[("mul", 3, 1.0), ("mul", 4, 0.25), ("mul", 4, 0.5)])
    train(book, "mul", 3, 1.0, 0.2, {JACOBIAN: -9.0}, state="collapsed")
    for share in (0.25, 0.5):  # collapsed when trained for less: no points, and one point alone is no path
        train(book, "mul", 4, share, 0.2, {JACOBIAN: -9.0}, state="collapsed")
    row = matched_row(book)
    assert (row["n_pairs"], row["n_excluded"], row["n_not_estimable"]) == (8, 1, 1)
    assert row["mean"] == pytest.approx(-0.1 + np.mean([SPREAD[b] for b in range(10) if b not in (3, 4)]))


def test_estimates_that_did_not_converge_are_no_points():
    book = matched()
    for key in ("mul/8/0/1.0", "mul/8/1/0.5"):
        book.contents.measures[f"{key}/input_jacobian"]["estimates"][JACOBIAN]["converged"] = False
    row = matched_row(book)
    assert (row["n_pairs"], row["n_not_estimable"], row["status"]) == (9, 1, "estimated")


def test_every_stratum_must_be_estimable():
    book = matched(depths=(8, 14))
    for share in (0.25, 0.5, 1.0):
        book.contents.replicates[f"mul/14/0/{share}"]["metrics"]["val/accuracy"] = 0.99
    factors = [{"merge": ["add", "add_alias", "mul"], "depth": [8, 14]}]
    rows = table(book, "matched_accuracy", factors=factors)
    wanted = {"matched_on": "val/accuracy", "arm": "merge=mul", "outcome": JACOBIAN}
    assert find(rows, stratum="all", **wanted)["n_pairs"] == 9
    assert find(rows, stratum="depth=8", **wanted)["n_pairs"] == 10
    assert find(rows, stratum="depth=14", **wanted)["n_not_estimable"] == 1


def test_one_replicate_and_cells_that_are_missing():
    row = matched_row(matched(blocks=1))
    assert (row["n_pairs"], row["mean"], row["sd"], row["ci_low"]) == (
        1,
        pytest.approx(-0.1 + SPREAD[0]),
        None,
        -math.inf,
    )
    row = matched_row(matched(accuracy={"add": ACCURACY["add"]}))
    assert (row["status"], row["n_pairs"], row["n_excluded"]) == ("not_estimable", 0, 10)
    for book in (Book(), study(jacobian=-0.4)):
        assert table(book, "matched_accuracy", budget=BUDGET | {"shortened": []}).num_rows == 0


# --- along a training


def trajectories(late=0.0):
    """Confirmed trainings measured after 4, 8 and 12 epochs; ``mul`` learns faster and is smoother by .1 at each accuracy."""
    book = Book()
    for block in range(10):
        for merge, reached in ACCURACY.items():
            key = train(book, merge, block, 1.0, reached[-1], {JACOBIAN: 0.0}, 0.1)
            record = book.contents.replicates[key]
            record["curves"] = {
                "val/accuracy": np.repeat(reached, 4).tolist(),
                "train/loss": np.repeat(LOSS[merge], 4).tolist(),
            }
            record["trajectory"] = [
                {"epoch": epoch, "seconds": 0.1, "estimates": {JACOBIAN: {
                    "value": 3.0 - 2.0 * reached[k] - (merge == "mul") * (0.1 + SPREAD[block]) + late * (epoch == 12),
                    "stderr": 0.0, "num_samples": 9, "converged": (merge, block, epoch) != ("mul", 0, 8)}}}
                for k, epoch in enumerate((4, 8, 12))
            ]  # fmt: skip
    return book


def test_matched_along_the_training_is_labelled_so():
    row = matched_row(trajectories(), along="training, not annealed")
    assert (row["label"], row["n_pairs"], row["status"]) == ("associational, not annealed", 10, "estimated")
    assert row["mean"] == pytest.approx(-0.1)
    assert row["unmatched_mean"] == pytest.approx(-0.14)
    budgets = find(table(trajectories(), "matched_accuracy"), along="budgets, annealed", matched_on="val/accuracy",
                   arm="merge=mul", stratum="all")  # fmt: skip
    assert budgets["status"] == "not_estimable"  # the confirmed network alone is no path


def test_smoother_when_and_at_what_accuracy():
    rows = [
        row
        for row in table(trajectories(), "trajectory").to_pylist()
        if (row["arm"], row["stratum"], row["outcome"]) == ("merge=mul", "all", JACOBIAN)
    ]
    found = [
        (r["epoch"], r["n_pairs"], r["n_missing"], r["arm_val_accuracy"], r["reference_val_accuracy"]) for r in rows
    ]
    assert found == [
        (4, 10, 0, pytest.approx(0.85), pytest.approx(0.80)),
        (8, 9, 1, pytest.approx(0.93), pytest.approx(0.90)),
        (12, 10, 0, pytest.approx(0.97), pytest.approx(0.95)),
    ]
    # -.1 of its own and -2 by how much more accurate it is
    assert [r["mean"] for r in rows] == pytest.approx([-0.2, -0.16 - np.mean(SPREAD[1:]), -0.14])
    assert {r["label"] for r in rows} == {"not annealed"}
    assert table(matched(), "trajectory").num_rows == 0
