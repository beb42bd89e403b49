"""The table of arms: means, spreads and states of every planned cell, and bold only where the best is surely the best."""

import numpy as np
import pytest
from book import planted, synthetic_spec

from analysis.inputs import Inputs
from analysis.stats.signflip import sign_flip_p
from analysis.tables.build import build_table, table_columns
from analysis.words.columns import DASH
from analysis.words.export import render


def rows_of(book, name="accuracy", **changes):
    inputs = Inputs(spec=synthetic_spec(**changes), contents=book.contents)
    return {(row["arm"], row["depth"]): row for row in build_table(inputs, name).to_pylist()}


def written(book, form, **changes):
    inputs = Inputs(spec=synthetic_spec(**changes), contents=book.contents)
    return render(build_table(inputs, "accuracy"), form, table_columns("accuracy")).decode()


def test_the_best_is_bold_only_where_it_beats_every_other_arm():
    # mul at depth 8 is .01 to .08 better in each of 8 pairs; the alias is add by another name and no rival
    rows = rows_of(planted())
    assert {arm for arm, row in rows.items() if row["best"]} == {("mul", 8), ("add", 14)}
    best = rows["mul", 8]
    assert best["p_others"] == pytest.approx(sign_flip_p([0.01 * (block + 1) for block in range(8)])) == 2 / 2**8
    values = [0.90 + block / 1000 + 0.01 * (block + 1) for block in range(8)]
    assert (best["mean"], best["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (best["n"], best["n_planned"], best["n_completed"]) == (8, 8, 8)
    assert "**94.85 ± 2.69%**" in written(planted(), "md")
    assert r"\textbf{94.85 ± 2.69\%}" in written(planted(), "tex")
    # without a control the alias is a rival: mul must beat both, by Holm at twice the smaller p
    both = rows_of(planted(), control=None)
    assert both["mul", 8]["p_others"] == pytest.approx(2 * 2 / 2**8)
    assert not both["add", 14]["best"] and both["add", 14]["p_others"] == 1.0


def test_not_significant_is_not_bold():
    book = planted(skip=[("mul", 8, block) for block in range(8)])
    for block in range(8):
        book.confirm("mul", 8, block, 0.90 + block / 1000 + (0.02 if block % 2 else -0.015))
    row = rows_of(book)["mul", 8]
    assert row["mean"] > rows_of(book)["add", 8]["mean"] and row["p_others"] > 0.05 and not row["best"]
    few = rows_of(planted(blocks=5))  # five pairs cannot give p below 2 / 32
    assert not any(row["best"] for row in few.values())
    assert "**" not in written(planted(blocks=5), "md")


def test_arms_that_fail_or_are_missing_leave_the_question_open_and_stay_in_sight():
    absent = planted(skip=[("add", 8, block) for block in range(8)] + [("add_alias", 8, block) for block in range(8)])
    rows = rows_of(absent)
    assert rows["add", 8] | {"cell": ""} == {
        "study": "synthetic", "dataset": "digits", "cell": "", "arm": "add", "depth": 8, "n_planned": 8, "n": 0, "mean": None,
        "sd": None, "n_completed": 0, "n_collapsed": 0, "n_diverged": 0, "n_failed": 0, "collapsed_mean": None,
        "p_others": None, "best": False,
    }  # fmt: skip
    assert not rows["mul", 8]["best"]
    line = next(line for line in written(absent, "md").splitlines() if "| add " in line)
    assert DASH in line
    failing = planted(skip=[("add", 8, 0)])
    failing.confirm("add", 8, 0, 0.1, state="collapsed")
    row, untouched = rows_of(failing)["add", 8], rows_of(planted())["add", 8]
    assert (row["n"], row["n_completed"], row["n_collapsed"], row["collapsed_mean"]) == (7, 7, 1, 0.1)
    assert untouched["collapsed_mean"] is None
    assert "10.0% |" in next(line for line in written(failing, "md").splitlines() if "| add " in line)
    assert rows_of(failing)["mul", 8]["p_others"] is None  # 1 of 8 pairs ineligible


def test_planned_cells_without_results_are_rows_of_the_cells_table():
    rows = rows_of(planted(skip=[("mul", 14, block) for block in range(8)]), "cells")
    assert len(rows) == 6
    missing = rows["mul", 14]
    assert (missing["cell"], missing["n_search"], missing["n_confirm"], missing["params"]) == (
        "digits/d14/mul",
        0,
        0,
        None,
    )
    assert missing["test_accuracy_mean"] is None and missing["confirm_seconds"] == 0
    # a cell that the study no longer plans stays, after those it plans
    fewer = rows_of(planted(), "cells", factors={"merge": ["add", "add_alias"], "depth": [8, 14]}, claims={})
    assert len(fewer) == 6 and {arm for arm, _ in list(fewer)[-2:]} == {"mul"}
