"""What the authors published: all 59 numbers stand in the preset, at the cells that they belong to, like with like."""

import math

import numpy as np
import pytest
from book import Book, synthetic_spec
from operators import authors_rows
from scipy import stats

from analysis.inputs import Inputs
from analysis.stats.spread import one_run
from analysis.tables.build import build_table
from search_spaces import load_spec
from study.registry import MERGES


def test_the_preset_holds_all_rows_of_the_notes():
    spec = load_spec("caltech101_authors")
    best = {k.levels["merge"]: k for k in spec.published if k.outcome == "val/accuracy_highest"}
    rows = {int(row["row"]): row for row in authors_rows()}
    assert len(best) == len(rows) == 59
    for number, row in rows.items():
        known = best[f"authors_{number}"]
        assert known.value == pytest.approx(float(row["best_test_accuracy_percent"]) / 100, abs=1e-9)
        assert known.note.startswith(row["merge"]) and row["clamped_before_every_forward"] in known.note
        assert known.levels["merge"] in MERGES and known.levels["merge_site"] == (
            "branch" if 51 <= number <= 58 else "skip"
        )
    others = {(k.levels["merge"], k.outcome): k.value for k in spec.published if k.outcome != "val/accuracy_highest"}
    assert others == {
        ("authors_1", "test/accuracy"): 0.8427, ("authors_1", "val/accuracy_last10"): 0.8365,
        ("authors_2", "test/accuracy"): 0.5501, ("authors_2", "val/accuracy_last10"): 0.5191,
    }  # fmt: skip


def test_the_two_logs_of_cifar100():
    found = {(k.levels["merge"], k.outcome): k.value for k in load_spec("cifar100_authors").published}
    assert found == {
        ("mul", "val/accuracy_highest"): 0.7810, ("mul", "test/accuracy"): 0.7750, ("mul", "val/accuracy_last10"): 0.7766,
        ("add", "val/accuracy_highest"): 0.7787, ("add", "test/accuracy"): 0.7727, ("add", "val/accuracy_last10"): 0.7741,
    }  # fmt: skip


def test_its_cells_are_the_baseline_and_the_best_and_worst_of_each_group():
    groups: dict[str, list] = {}
    for row in authors_rows():
        if row["row"] != "1":
            groups.setdefault(row["group"], []).append(
                (float(row["best_test_accuracy_percent"]), f"authors_{row['row']}")
            )
    ends = {name for rows in groups.values() for _, name in (min(rows), max(rows))}
    assert {cell["merge"] for cell in load_spec("caltech101_authors").cells()} == ends | {"authors_1", "add_bn_f"}


def inputs(outcome) -> Inputs:
    book = Book()
    curves = {0: [0.5, 0.9, 0.7], 1: [0.2, 0.4, 0.8], 2: [0.1, math.nan, 0.3]}
    for block, curve in curves.items():
        book.confirm("add", 14, block, curve[-1])
    for record in book.contents.replicates.values():
        record["curves"] = {"val/accuracy": curves[record["block"]]}
    known = {"levels": {"merge": "add"}, "outcome": outcome, "value": 0.8, "source": "s"}
    return Inputs(spec=synthetic_spec(published=[known]), contents=book.contents)


def test_best_epoch_with_best_epoch_and_last_ten_with_last_ten():
    for outcome, found in (("val/accuracy_highest", [0.9, 0.8]), ("val/accuracy_last10", [0.7, 1.4 / 3])):
        (row,) = build_table(inputs(outcome), "published").to_pylist()
        # a curve with a number that is none has neither
        assert row["n"] == 2 and row["found"] == pytest.approx(sum(found) / 2)
        assert (row["found_least"], row["found_most"]) == pytest.approx((min(found), max(found)))
    assert "val/accuracy_last10" not in inputs("val/accuracy_highest").trials.column_names


def test_the_luck_of_one_run():
    """One more run of normal ones falls inside, and two differ by less, as often as it says."""
    generator = np.random.default_rng(0)
    inside = apart = 0
    for _ in range(4000):
        drawn = generator.normal(3, 2, 8)
        low, high, differ = one_run(drawn[:6], 0.1)
        inside += low <= drawn[6] <= high
        apart += abs(drawn[6] - drawn[7]) <= differ
    assert inside / 4000 == pytest.approx(0.9, abs=0.02) and apart / 4000 == pytest.approx(0.9, abs=0.02)
    low, high, differ = one_run([1.0, 3.0], 0.05)
    half = stats.t.ppf(0.975, 1) * math.sqrt(2)
    assert (high - low) / 2 == pytest.approx(half * math.sqrt(1.5)) and differ == pytest.approx(half * math.sqrt(2))
    assert one_run([1.0], 0.05) == (None, None, None)
