"""Smoothness at matched accuracy, along shortened trainings and along a training itself: planted, worked out by hand."""

import math

import numpy as np
import pytest
from book import EXCESS, JACOBIAN, Book, find, synthetic_spec
from one_depth import SPREAD, study
from shares import BUDGET, inputs_of, table, train

from analysis.figures.build import figure_data
from analysis.stats.crossing import value_at
from analysis.tables.build import build_table
from analysis.tables.matched import of_claims

# share of the epochs -> its place in the lists below
SHARES = {0.25: 0, 0.5: 1, 1.0: 2}


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
                for share, k in SHARES.items():
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


def test_a_report_shows_the_claims_contrasts_and_the_files_all():
    contrasts = [{"arm": {"merge": "mul"}, "reference": {"merge": "add_alias"}}]
    inputs = inputs_of(matched(), contrasts=contrasts)
    whole = build_table(inputs, "matched_accuracy")
    shown = of_claims(inputs, whole).to_pylist()
    assert {(r["arm"], r["reference"]) for r in whole.to_pylist()} == {
        ("merge=add_alias", "merge=add"), ("merge=mul", "merge=add"), ("merge=mul", "merge=add_alias"),
    }  # fmt: skip
    # one stratum is the pooled reading itself
    assert [(r["arm"], r["reference"], r["stratum"]) for r in shown if r["matched_on"] == "val/accuracy"] == [
        ("merge=add_alias", "merge=add", "all"), ("merge=mul", "merge=add", "all"),
    ]  # fmt: skip
    unclaimed = inputs_of(matched(), contrasts=contrasts, claims={})
    # without a claim on smoothness every statistic is matched
    assert {r["outcome"] for r in build_table(unclaimed, "matched_accuracy").to_pylist()} == {JACOBIAN, EXCESS}
    assert of_claims(unclaimed, build_table(unclaimed, "matched_accuracy")).num_rows == 2 * 2 * 2


def test_figure_data_are_means_over_networks():
    rows = figure_data(inputs_of(matched()), "matched").to_pylist()
    mine = [r for r in rows if (r["arm"], r["statistic"]) == ("mul", JACOBIAN)]
    assert [(r["point"], r["n"], r["val_accuracy"]) for r in mine] == [
        (0.25, 10, pytest.approx(0.85)), (0.5, 10, pytest.approx(0.93)), (1.0, 10, pytest.approx(0.97)),
    ]  # fmt: skip
    assert [r["value"] for r in mine] == pytest.approx([2.9 - 2 * accuracy for accuracy in ACCURACY["mul"]])
    assert {
        r["along"]
        for r in figure_data(inputs_of(trajectories(), budget=BUDGET | {"shortened": []}), "matched").to_pylist()
    } == {"training, not annealed"}


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
