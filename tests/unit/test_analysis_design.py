"""Which cells and replicates are compared: strata, blocks, studies that shrank or have not begun, refused tables."""

import pyarrow.parquet
import pytest
from book import JACOBIAN, Book, effects_of, find, mul, planted, synthetic_spec

from analysis.effects.table import SCHEMA, effects_table
from analysis.trials.grid import confirm_grid
from analysis.trials.table import trials_table
from study.results.ledger import Contents

AT = {"abs": 1e-12}


def test_one_block_has_no_verdict_and_a_demonstration_says_so():
    book = Book()
    for seed in range(6):
        for merge in ("add", "mul"):
            book.confirm(merge, 8, 0, 0.9 + seed / 100 + 0.01 * (merge == "mul"), trial_key=f"{merge}{seed}")
            book.contents.replicates[f"{merge}{seed}"]["replicate"] = seed
    spec = synthetic_spec(blocks=1, replicates=6, demonstration=True, factors=[{"merge": ["add", "add_alias", "mul"]}])
    row = mul(effects_of(book, spec), "-")
    assert (row["n_pairs"], row["mean_verdict"], row["p_sign_flip"]) == (6, False, 2 / 64)
    assert row["label"] == "at these hyperparameters, no verdict; demonstration"
    assert mul(effects_of(book, spec))["p_holm"] is None
    fewer = spec.model_copy(update={"replicates": 4})
    assert mul(effects_of(book, fewer))["n_pairs"] == 4
    independent = spec.model_copy(update={"blocks": 6, "replicates": 1})
    assert mul(effects_of(book, independent))["n_pairs"] == 1


def test_strata_are_named_by_every_other_factor_and_stay_within_a_dataset():
    factors = [
        {"merge": ["add", "mul"], "attention": ["none"], "attention_form": ["none"], "dataset": ["digits", "fake"]},
        {"merge": ["add", "mul"], "attention": ["se"], "attention_form": ["mul", "add"], "dataset": ["digits"]},
    ]
    spec = synthetic_spec(factors=factors, fixed={"depth": 8}, claims={}, control=None,
                          contrasts=[{"arm": {"merge": "mul"}, "reference": {"merge": "add"}}])  # fmt: skip
    book = Book()
    for merge in ("add", "mul"):
        book.replicate(merge, trial_key=merge, config={"dataset": "fake"}, metrics={"test/accuracy": 0.5})
    effects = effects_table(confirm_grid(spec, trials_table(spec, book.contents)))
    accuracy = [r for r in effects.to_pylist() if r["outcome"] == "test/accuracy"]
    assert [(r["dataset"], r["stratum"], r["n_pairs"]) for r in accuracy] == [
        ("fake", "all", 1), ("fake", "attention=none", 1),
        ("digits", "all", 0), ("digits", "attention=none", 0),
        ("digits", "attention=se attention_form=mul", 0), ("digits", "attention=se attention_form=add", 0),
    ]  # fmt: skip


def test_an_empty_study_has_rows_without_numbers():
    effects = effects_of(Book())
    row = mul(effects)
    assert (row["n_pairs"], row["mean_difference"], row["mean_verdict"]) == (0, None, False)
    assert row["note"] == "pairs not run of 8 planned: 8"
    assert mul(effects, outcome=JACOBIAN)["n_pairs"] == 0
    contrasts = [{"arm": {"merge": "mul"}, "reference": {"merge": "no such"}}]
    lonely = effects_of(planted(), synthetic_spec(contrasts=contrasts))
    row = find(lonely, reference="merge=no such", outcome="test/accuracy")
    assert (row["dataset"], row["stratum"], row["n_pairs"]) == ("digits", "all", 0)


def test_what_a_larger_spec_left_behind_does_not_enter():
    book = planted()
    for number in range(4):
        book.replicate("mul", 8, 0, phase="search", number=number)
    for number in range(2):
        book.replicate("add", 8, 0, phase="search", number=number)
    row = mul(effects_of(book, synthetic_spec(blocks=6)), "depth=8")
    assert (row["n_pairs"], row["n_excluded"], row["note"]) == (6, 0, "")
    assert row["mean_difference"] == pytest.approx(0.035, **AT)
    larger = {"search_trials": 4, "startup_trials": 1}
    assert mul(effects_of(book, synthetic_spec(budget=larger)), "depth=8")["n_pairs"] == 7


def test_cells_outside_the_spec_do_not_enter():
    spec = synthetic_spec(factors=[{"merge": ["add", "add_alias", "mul"], "depth": [8]}])
    row = mul(effects_of(planted(), spec))
    assert row["mean_difference"] == pytest.approx(0.045, **AT)


def test_schema_survives_parquet_and_so_does_the_analysis(tmp_path):
    spec, path = synthetic_spec(), tmp_path / "trials.parquet"
    book = planted(skip=[("mul", 14, 0)])
    book.confirm("mul", 14, 0, 0.3, state="collapsed")
    trials = trials_table(spec, book.contents)
    pyarrow.parquet.write_table(trials, path)
    read = pyarrow.parquet.read_table(path)
    effects = effects_table(confirm_grid(spec, trials))
    assert effects.schema.equals(SCHEMA, check_metadata=True)
    assert effects_table(confirm_grid(spec, read)).equals(effects)
    assert effects_table(confirm_grid(spec, trials_table(spec, Contents()))).schema.equals(SCHEMA)


def test_two_rows_of_one_replicate_are_refused():
    trials = trials_table(synthetic_spec(), planted().contents)
    doubled = pyarrow.concat_tables([trials, trials])
    with pytest.raises(ValueError, match="two confirmed rows"):
        confirm_grid(synthetic_spec(), doubled)
