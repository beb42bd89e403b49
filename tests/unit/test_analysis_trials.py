"""The trials and curves tables: columns, types, order, superseded records, gaps."""

import math
import random

import pyarrow as pa
import pytest
from book import EXCESS, JACOBIAN, Book, planted, synthetic_spec

from analysis.trials.table import curves_table, trials_table
from study.results.ledger import Contents
from study.schema import COST_COLUMNS, IDENTITY_COLUMNS

METRICS = ["train/accuracy", "train/loss", "val/accuracy", "val/loss", "test/accuracy", "test/loss"]


def test_columns_in_the_order_of_the_contract():
    table = trials_table(synthetic_spec(), planted().contents)
    metrics = [name + suffix for suffix in ("", "_best", "_bn_reestimated") for name in METRICS]
    estimates = [name + suffix for name in (JACOBIAN, EXCESS) for suffix in ("", "_stderr", "_converged")]
    others = ["lr", "optimiser", *COST_COLUMNS, "defaulted", "boundary"]
    assert table.column_names == [*IDENTITY_COLUMNS, *others, *metrics, *estimates]
    assert table.num_rows == 48


def test_a_row_says_what_the_records_say():
    book = Book()
    key = book.replicate(
        "mul", 14, 3, number=7, boundary=["lr", "wd"], reason="", metrics={"test/loss": math.nan, "test/accuracy_best": 0.5},
        config={"lr": 0.03, "optimiser": "adam", "attention": "se"}, epochs=4, state="collapsed",
    )  # fmt: skip
    book.measure(key, "path", {EXCESS: 0.25}, converged=False, seconds=2.0)
    book.measure(key, "input_jacobian", {}, seconds=0.5, error="out of memory")
    row = trials_table(synthetic_spec(), book.contents).to_pylist()[0]
    assert {name: row[name] for name in IDENTITY_COLUMNS} == {
        "study": "synthetic", "trial_key": key, "cell": "merge=mul,depth=14", "phase": "confirm", "replicate": 3,
        "number": 7, "seed": 1003, "state": "collapsed", "reason": "", "dataset": "digits", "network": "cifar_resnet",
        "depth": 14, "width": 8, "merge": "mul", "merge_site": "skip", "attention": "se", "attention_form": "none",
        "search_block": 3,
    }  # fmt: skip
    assert (row["lr"], row["optimiser"], row["epochs"], row["measure_seconds"]) == (0.03, "adam", 4, 2.5)
    assert row["boundary"] == "lr,wd"
    assert row["test/loss"] is None and row["train/loss"] is None and row["test/accuracy_best"] == 0.5
    assert (row[EXCESS], row[f"{EXCESS}_stderr"], row[f"{EXCESS}_converged"]) == (0.25, 0.01, False)


def test_order_and_bytes_do_not_depend_on_the_order_of_writing():
    spec, contents = synthetic_spec(), planted().contents
    shuffled = Contents()
    replicates, measures = list(contents.replicates.values()), list(contents.measures.values())
    random.Random(0).shuffle(replicates)
    random.Random(1).shuffle(measures)
    for record in [*measures, *replicates]:
        shuffled.add(record)
    expected = trials_table(spec, contents)
    assert trials_table(spec, shuffled).equals(expected, check_metadata=True)
    cells = list(dict.fromkeys(expected["cell"].to_pylist()))
    assert cells == [f"merge={m},depth={d}" for m in ("add", "add_alias", "mul") for d in (8, 14)]


def test_search_stands_before_confirm_and_unplanned_cells_last():
    book = Book()
    book.replicate("zero", 8, 0)
    book.replicate("add", 8, 1, phase="confirm")
    book.replicate("add", 8, 1, phase="search", number=1)
    book.replicate("add", 8, 0, phase="search", number=1)
    book.replicate("add", 8, 0, phase="search", number=0)
    rows = trials_table(synthetic_spec(), book.contents).to_pylist()
    assert [(r["merge"], r["phase"], r["search_block"], r["number"]) for r in rows] == [
        ("add", "search", 0, 0), ("add", "search", 0, 1), ("add", "search", 1, 1),
        ("add", "confirm", 1, 1), ("zero", "confirm", 0, 1),
    ]  # fmt: skip


def test_a_later_record_supersedes_its_slot():
    book = Book()
    book.confirm("add", 8, 0, 0.1, trial_key="old", number=1)
    book.confirm("add", 8, 0, 0.2, trial_key="new", number=1)
    book.confirm("add", 8, 1, 0.3, trial_key="winner of two", number=1)
    book.confirm("add", 8, 1, 0.4, trial_key="winner of four", number=3)
    book.replicate("add", 8, 0, phase="search", number=0, trial_key="s0")
    book.replicate("add", 8, 0, phase="search", number=1, trial_key="s1")
    book.measure("old", "path", {EXCESS: 9.0})
    book.measure("new", "path", {EXCESS: 1.0}, measure_key="first settings")
    book.measure("new", "path", {EXCESS: 2.0}, measure_key="second settings")
    table = trials_table(synthetic_spec(), book.contents)
    assert table["trial_key"].to_pylist() == ["s0", "s1", "new", "winner of four"]
    assert table[EXCESS].to_pylist() == [None, None, 2.0, None]


def test_types_are_fixed_whatever_was_measured():
    empty, full = trials_table(synthetic_spec(), Contents()), trials_table(synthetic_spec(), planted().contents)
    assert empty.num_rows == 0
    for field in empty.schema:
        assert full.schema.field(field.name).equals(field, check_metadata=True)
    assert full.schema.field("seed").type == pa.int64()
    assert full.schema.field("train_seconds").metadata[b"unit"] == b"s"
    assert full.schema.field("test/loss_best").metadata[b"unit"] == b"nat"


def test_a_factor_without_a_column_of_its_own_gets_one():
    factors = [{"merge": ["add", "mul"], "epochs": [3, 6], "batch_size": [64, 128]}]
    spec = synthetic_spec(factors=factors, fixed={"dataset": "digits"}, claims={}, control=None)
    book = Book()
    book.replicate(config={"epochs": 6, "batch_size": 64}, epochs=2, state="diverged")
    row = trials_table(spec, book.contents).to_pylist()[0]
    assert (row["epochs_setting"], row["epochs"], row["batch_size"]) == (6, 2, 64)


def test_estimates_of_one_name_are_refused():
    book = Book()
    key = book.confirm("add", 8, 0, 0.9)
    book.measure(key, "path", {EXCESS: 1.0})
    book.measure(key, "other", {EXCESS: 2.0})
    with pytest.raises(ValueError, match="both give"):
        trials_table(synthetic_spec(), book.contents)
    book = Book()
    book.measure(book.confirm("add", 8, 0, 0.9), "path", {"epochs": 1.0})
    with pytest.raises(ValueError, match="'epochs'"):
        trials_table(synthetic_spec(), book.contents)


def test_curves_in_long_form():
    book = Book()
    book.replicate("mul", 8, 1, curves={"val/loss": [2.0, math.nan], "train/loss": [3.0]})
    book.replicate("add", 8, 0, curves={"val/loss": [1.5, 1.0, 0.5]})
    table = curves_table(synthetic_spec(), book.contents)
    rows = [(r["cell"][6:9], r["block"], r["metric"], r["epoch"], r["value"]) for r in table.to_pylist()]
    assert rows == [
        ("add", 0, "val/loss", 1, 1.5), ("add", 0, "val/loss", 2, 1.0), ("add", 0, "val/loss", 3, 0.5),
        ("mul", 1, "train/loss", 1, 3.0), ("mul", 1, "val/loss", 1, 2.0), ("mul", 1, "val/loss", 2, None),
    ]  # fmt: skip
    assert curves_table(synthetic_spec(), Contents()).schema.equals(table.schema)
