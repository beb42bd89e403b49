"""Shares of the epochs: every verdict again at each, by the study's own rule; and they are in no other analysis."""

import pytest
from book import EXCESS, JACOBIAN, Book
from one_depth import SPREAD, claims_of, study
from shares import BUDGET, inputs_of, table, train

from analysis.tables.build import table_columns
from analysis.trials.shortened import short_shares
from analysis.words.export import render


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


HALF = BUDGET | {"shortened": [0.5]}
GOLDEN = """\
| C3 | digits | 50.0% | supported | supported | near (log Jacobian) | 0.400 log [0.377, 0.423] | 0.1 log | 10 | The interval lies above zero and reaches the margin. |
| C3 | digits | 100.0% | supported | supported | near (log Jacobian) | 0.400 log [0.377, 0.423] | 0.1 log | 10 | The interval lies above zero and reaches the margin. |
| C4 | digits | 50.0% | refuted | supported | test accuracy | 0.00 pp [-0.20, 0.20] | 2 pp | 10 | The upper limit for refutation, 0.23 pp, lies below the margin of 2 pp. |
| C4 | digits | 100.0% | supported | supported | test accuracy | 3.00 pp [2.80, 3.20] | 2 pp | 10 | The interval lies above zero and reaches the margin. |
"""  # noqa: E501


def test_each_share_is_judged_as_the_study_is():
    book = shortened()
    rows = table(book, "budget_verdicts", budget=HALF).to_pylist()
    found = [(r["claim"], r["share"], r["verdict"], r["full_verdict"], r["agrees"], r["n_pairs"]) for r in rows]
    assert found == [
        ("C3", 0.5, "supported", "supported", True, 10),
        ("C3", 1.0, "supported", "supported", True, 10),
        ("C4", 0.5, "refuted", "supported", False, 10),
        ("C4", 1.0, "supported", "supported", True, 10),
    ]
    assert [r["effect"] for r in rows if r["claim"] == "C4"] == pytest.approx([0.0, 0.03])
    assert rows[2]["reason"].startswith("The upper limit for refutation")
    text = render(table(book, "budget_verdicts", budget=HALF), "md", table_columns("budget_verdicts")).decode()
    assert [" ".join(line.split()) for line in text.splitlines()[2:]] == GOLDEN.splitlines()


def test_a_known_difference_that_the_study_sees_is_seen_at_each_share():
    book, both = shortened(), {"merge": "add"}
    for block in range(10):
        train(book, "add", block, 0.25, 0.5, {JACOBIAN: 1.0})
    given = {"assay": {"arm": both | {"shortened": 1}, "reference": both | {"shortened": 0.25}}}
    rows = table(book, "budget_verdicts", budget=BUDGET, **given).to_pylist()
    found = {(row["claim"], row["share"]): row["verdict"] for row in rows}
    assert (found["C4", 0.5], found["C4", 1.0]) == ("refuted", "supported")
    assert found["C3", 0.5] == found["C3", 1.0] == "supported"


def test_shortened_trainings_are_in_no_confirm_analysis():
    with_short, without = shortened(half=-0.5), study(accuracy=0.03, jacobian=-0.4)
    ours, theirs = claims_of(with_short), claims_of(without)
    assert ours == theirs
    for name in ("effects", "differences", "cells", "claim_parts"):
        a, b = table(with_short, name), table(without, name)
        shared = [
            column
            for column in a.column_names
            if column not in ("epochs_confirm", "measure_seconds") and "short" not in column
        ]
        kept = [row for row in a.select(shared).to_pylist() if EXCESS not in str(row.get("outcome"))]
        assert kept == b.select(shared).to_pylist(), name


def test_a_share_not_run_waits_and_a_study_without_shares_has_no_table():
    book = shortened()
    rows = table(book, "budget_verdicts").to_pylist()
    quarter = [row for row in rows if row["share"] == 0.25]
    assert {row["verdict"] for row in quarter} == {"undecided"} and {row["n_pairs"] for row in quarter} == {0}
    assert {(row["reason"]) for row in quarter} == {"10 of 10 pairs have not run yet."}
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
    assert short_shares(inputs.spec, inputs.contents) == {"10/0.5": 0.5, "20/0.5": 0.5}
    trials = inputs.trials_at(0.5).to_pylist()
    assert [(r["trial_key"], r["phase"], r["epochs_setting"]) for r in trials] == [
        ("10/0.5", "confirm", 10), ("20/0.5", "confirm", 20),
    ]  # fmt: skip
    assert inputs.trials_at(0.25).num_rows == 0
