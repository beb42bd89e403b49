"""What the search says of an operator: best of n, width of the good region; and what choosing an epoch adds to its score."""

import itertools
import math

import numpy as np
import pytest
from book import Book, find, synthetic_spec
from scipy import stats

from analysis.figures.build import figure_data
from analysis.inputs import Inputs
from analysis.stats.spread import jackknife_ratio, spread
from analysis.tables.best_of_n import expected_best
from analysis.tables.build import build_table, table_columns
from analysis.tables.selection import inflation
from analysis.words.export import render

FACTORS = [{"merge": ["add", "mul"], "depth": [8]}]
FIRST, SECOND, WHOLE = "val/accuracy_half1", "val/accuracy_half2", "val/accuracy"


def inputs_of(book, trials=4, startup=2, **changes):
    given = {"factors": FACTORS, "blocks": 3, "budget": {"search_trials": trials, "startup_trials": startup}}
    given |= {"claims": {}, "control": None} | changes
    return Inputs(spec=synthetic_spec(**given), contents=book.contents, chance={"digits": 0.1})


def searched(accuracies, rates=None, merge="add", book=None, states=()):
    """One list of validation accuracies a block; ``states`` maps (block, number) to how a trial ended."""
    book = book or Book()
    for block, reached in enumerate(accuracies):
        for number, accuracy in enumerate(reached):
            rate = rates[block][number] if rates else 0.1
            state = dict(states).get((block, number), "completed")
            metrics = {} if state in ("diverged", "failed") else {"val/accuracy": accuracy}
            book.replicate(merge, 8, block, phase="search", number=number, metrics=metrics, state=state,
                           config={"lr": rate})  # fmt: skip
    return book


# --- expected best of n


def test_expected_best_is_the_mean_over_all_draws():
    values = [0.3, 0.9, 0.5, 0.9]
    for n in range(1, 5):
        every = [max(draw) for draw in itertools.product(values, repeat=n)]
        assert expected_best(values)[n - 1] == pytest.approx(np.mean(every))
    assert len(expected_best([])) == 0 and expected_best([0.4]).tolist() == [0.4]
    # of many values evenly between 0 and 1: n / (n + 1)
    assert expected_best((np.arange(4000) + 0.5) / 4000)[:3] == pytest.approx([1 / 2, 2 / 3, 3 / 4], abs=1e-3)


def test_curves_are_means_over_blocks_with_their_spread():
    book = searched([[0.1, 0.5, 0.9, 0.5], [0.2, 0.6, 0.8, 0.6], [0.3]])
    inputs = inputs_of(book)
    rows = {row["n"]: row for row in build_table(inputs, "best_of_n").to_pylist()}
    assert list(rows) == [1, 2, 4]
    assert (rows[1]["n_blocks"], rows[2]["n_blocks"], rows[1]["n_trials"]) == (3, 2, 9)
    assert rows[1]["mean"] == pytest.approx(np.mean([0.5, 0.55, 0.3]))
    assert rows[1]["sd"] == pytest.approx(np.std([0.5, 0.55, 0.3], ddof=1))
    four = [expected_best(v)[3] for v in ([0.1, 0.5, 0.9, 0.5], [0.2, 0.6, 0.8, 0.6])]
    assert (rows[4]["lowest"], rows[4]["highest"]) == pytest.approx((min(four), max(four)))
    assert (rows[1]["arm"], rows[1]["depth"]) == ("add", 8)
    assert figure_data(inputs, "best_of_n")["n"].to_pylist() == [1, 2, 3, 4]


def test_a_diverged_trial_counts_at_chance_and_a_broken_machine_not_at_all():
    book = searched([[0.0, 0.8, 0.0, 0.9]], states=[((0, 0), "diverged"), ((0, 2), "failed")])
    row = find(build_table(inputs_of(book), "best_of_n"), n=1)
    assert (row["n_trials"], row["n_diverged"], row["mean"]) == (3, 1, pytest.approx((0.1 + 0.8 + 0.9) / 3))
    # trials beyond the budget of the specification, and blocks it does not ask for
    assert build_table(inputs_of(book, trials=2, startup=1), "best_of_n")["n_trials"].to_pylist() == [2, 2]
    assert build_table(inputs_of(Book()), "best_of_n").num_rows == 0


# --- sensitivity


def test_shares_near_the_best_of_each_block():
    accuracies = [[0.95, 0.80, 0.96, 0.955], [0.90, 0.70, 0.60, 0.80], [0.70, 0.705, 0.71, 0.50]]
    rates = [[0.01, 1.0, 0.1, 0.1], [0.1] * 4, [0.01, 0.1, 1.0, 0.1]]
    row = find(build_table(inputs_of(searched(accuracies, rates)), "sensitivity"), cell="merge=add,depth=8")
    assert (row["n_blocks"], row["n_trials"], row["within"]) == (3, 12, 0.01)  # a point where no claim says otherwise
    # 3, 1 and 3 of 4; of the two start-up points 1, 1 and 2
    assert row["share"] == pytest.approx(7 / 12)
    half = stats.t.ppf(0.975, 2) * np.std([0.75, 0.25, 0.75], ddof=1) / math.sqrt(3)
    assert (row["share_low"], row["share_high"]) == (0.0, 1.0) and half > 7 / 12  # no share lies beyond
    assert row["share_startup"] == pytest.approx(4 / 6)
    # from .01 to .1, one alone, from .01 to 1: two powers of ten are searched
    assert (row["lr_decades"], row["lr_decades_searched"]) == pytest.approx((1.0, 2.0))


def test_the_jackknife_is_the_t_interval_where_blocks_are_equal_and_its_loop_where_not():
    parts, wholes = np.array([3.0, 5.0, 4.0, 6.0]), np.full(4, 8.0)
    ratio, low, high = jackknife_ratio(parts, wholes, 0.05)
    expected = stats.ttest_1samp(parts / 8, 0).confidence_interval(0.95)
    assert (ratio, low, high) == pytest.approx((parts.mean() / 8, *expected))
    wholes = np.array([8.0, 10.0, 4.0, 9.0])
    ratio, low, high = jackknife_ratio(parts, wholes, 0.05)
    left = [np.delete(parts, i).sum() / np.delete(wholes, i).sum() for i in range(4)]
    pseudo = [4 * ratio - 3 * value for value in left]
    assert (low, high) == pytest.approx(stats.ttest_1samp(pseudo, 0).confidence_interval(0.95))
    assert jackknife_ratio([1], [2], 0.05) == (0.5, None, None)
    assert jackknife_ratio([], [], 0.05) == (None, None, None)
    assert jackknife_ratio([0, 0], [0, 0], 0.05) == (None, None, None)
    assert jackknife_ratio([1, 0], [2, 0], 0.05) == (0.5, None, None)


def test_intervals_of_shares_cover():
    """500 studies of 10 blocks with their own width of the good region: standard error of a coverage of .95 is .01."""
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(500):
        width = generator.beta(4, 6, size=10)  # mean .4
        low, high = jackknife_ratio(generator.binomial(12, width), np.full(10, 12), 0.05)[1:]
        covered += low <= 0.4 <= high
    assert 0.92 <= covered / 500 <= 0.98


def test_diverged_trials_are_never_near_the_best():
    book = searched([[0.1, 0.1], [0.1, 0.1]], states=[((b, n), "diverged") for b in (0, 1) for n in (0, 1)])
    row = find(build_table(inputs_of(book), "sensitivity"), cell="merge=add,depth=8")
    assert (row["share"], row["share_startup"], row["lr_decades"], row["n_diverged"]) == (0.0, 0.0, None, 4)


def test_a_rate_that_is_not_searched_has_no_range_and_a_claims_margin_is_the_width():
    nuisance = {"weight_decay": {"low": 0.0, "high": 0.1, "default": 0.0}}
    claims = {"C4": synthetic_spec().model_dump()["claims"]["C4"]}
    book = searched([[0.9, 0.885], [0.9, 0.885]])
    inputs = inputs_of(book, nuisance=nuisance, claims=claims)
    row = find(build_table(inputs, "sensitivity"), cell="merge=add,depth=8")
    assert (row["within"], row["share"], row["lr_decades"], row["lr_decades_searched"]) == (0.02, 1.0, None, None)


# --- selection inflation


def test_inflation_by_hand():
    curves = {FIRST: [0.5, 0.9, 0.7, 0.9], SECOND: [0.6, 0.8, 0.9, 0.5], WHOLE: [0.55, 0.85, 0.8, 0.7]}
    # half 1 chooses its first .9, where half 2 has .8; half 2 chooses .9, where half 1 has .7
    assert inflation(curves) == pytest.approx((0.1, (0.1 + 0.2) / 2, 0.15))
    assert inflation({WHOLE: [0.5]}) is None
    assert inflation(curves | {SECOND: [0.6, math.nan, 0.9, 0.5]}) is None


def test_inflation_by_cell_with_its_interval():
    book = Book()
    for block in range(8):
        for merge in ("add", "mul"):
            state = "collapsed" if (merge, block) == ("mul", 7) else "completed"
            gap = 0.01 * (block + 1) if merge == "add" else 0.0
            curves = {FIRST: [0.5, 0.8 + gap], SECOND: [0.5, 0.8], WHOLE: [0.5, 0.8 + gap / 2]}
            book.replicate(merge, 8, block, state=state, curves=curves if (merge, block) != ("add", 0) else {})
    rows = build_table(inputs_of(book, blocks=8), "selection_inflation").to_pylist()
    add, mul = rows
    assert (add["n"], add["n_failed"], add["n_unknown"], mul["n"], mul["n_failed"]) == (7, 0, 1, 7, 1)
    expected = spread([0.01 * (block + 1) for block in range(1, 8)], 0.05)
    assert {name: add[name] for name in expected} == pytest.approx(expected)
    # the second half chooses the same epoch and loses what the first gains: half 1 was the easier one
    assert (add["both_ways_mean"], mul["mean"]) == pytest.approx((0.0, 0.0))
    assert add["max_minus_final_mean"] == 0.0
    text = render(
        build_table(inputs_of(book, blocks=8), "selection_inflation"), "md", table_columns("selection_inflation")
    )
    assert [" ".join(line.split()) for line in text.decode().splitlines()[2:]] == [
        "| merge=add,depth=8 | 7 | 0 | 5.00 pp [3.00, 7.00] | 2.2 pp | 0.00 pp [0.00, 0.00] | 0.00 pp [0.00, 0.00] |",
        "| merge=mul,depth=8 | 7 | 1 | 0.00 pp [0.00, 0.00] | 0 pp | 0.00 pp [0.00, 0.00] | 0.00 pp [0.00, 0.00] |",
    ]
    assert build_table(inputs_of(Book()), "selection_inflation").num_rows == 0


def test_inflation_of_noise_is_that_of_the_largest_of_many():
    """Epochs that differ by sampling alone: the choosing half gains the expected largest of k normals, the other nothing."""
    generator = np.random.default_rng(3)
    found = [
        inflation({FIRST: a, SECOND: b, WHOLE: a})[1]
        for a, b in (0.9 + 0.01 * generator.normal(size=(2000, 2, 10))).tolist()
    ]
    largest = 1.53875  # of ten standard normals: tables of order statistics
    assert np.mean(found) == pytest.approx(0.01 * largest, abs=4 * np.std(found) / math.sqrt(2000))
