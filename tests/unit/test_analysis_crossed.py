"""Interactions: planted ones come back with sign, size and p; scipy and plain arithmetic agree; nulls stay quiet."""

import itertools

import numpy as np
import pytest
from book import Book, find, synthetic_spec
from scipy import stats

from analysis.inputs import Inputs
from analysis.tables.build import build_table

BLOCKS = 8


def study(effect, *, depths=(8, 14), attentions=(("none", "none"),), fail=(), noise=0.0, seed=0, blocks=BLOCKS):
    """``mul`` minus ``add`` at (depth, attention) is ``effect(depth, attention)`` and noise of a replicate and cell."""
    book, rng = Book(), np.random.default_rng(seed)
    for block, depth, (attention, form), merge in itertools.product(range(blocks), depths, attentions, ("add", "mul")):
        by = effect(depth, attention) if merge == "mul" else 0.0
        state = "collapsed" if (merge, depth, block) in fail else "completed"
        accuracy = 0.8 + block / 1000 + by + noise * rng.standard_normal()
        key = f"{merge}/{depth}/{attention}/{form}/{block}"
        book.confirm(
            merge, depth, block, accuracy, state=state, trial_key=key,
            config={"attention": attention, "attention_form": form},
        )  # fmt: skip
        record = book.contents.replicates[key]
        record["cell"] = f"merge={merge},depth={depth},attention={attention}.{form}"
    factors = [
        {"merge": ["add", "mul"], "depth": list(depths), "attention": [a], "attention_form": [f]} for a, f in attentions
    ]
    spec = synthetic_spec(factors=factors, control=None, blocks=blocks)
    return Inputs(spec=spec, contents=book.contents, chance={"digits": 0.1})


def accuracy_rows(inputs, table="interactions", **wanted):
    rows = build_table(inputs, table).to_pylist()
    kept = [row for row in rows if row["outcome"] == "test/accuracy"]
    return [row for row in kept if all(row[name] == value for name, value in wanted.items())]


def test_an_interaction_with_depth_is_the_difference_of_differences():
    inputs = study(lambda depth, _: 0.02 if depth == 8 else -0.01, noise=0.004)
    (row,) = accuracy_rows(inputs)
    effects = {r["stratum"]: r for r in inputs.effects.to_pylist() if r["outcome"] == "test/accuracy"}
    shallow, deep = (effects[f"depth={d} attention=none"]["mean_difference"] for d in (8, 14))
    assert (row["factor"], row["level"], row["base"], row["stratum"]) == ("depth", "14", "8", "all")
    assert (row["effect_level"], row["effect_base"]) == pytest.approx((deep, shallow), abs=1e-12)
    assert row["estimate"] == pytest.approx(deep - shallow, abs=1e-12)
    assert row["estimate"] < 0 and row["p_sign_flip"] == 2 / 2**BLOCKS and row["ci_high"] < 0
    assert (row["n_pairs"], row["n_excluded"], row["n_failures"], row["label"]) == (8, 0, 0, "exploratory")
    # the same numbers from the differences table alone, and the exact test from scipy
    by = {(r["stratum"], r["replicate"]): r["difference"] for r in inputs.differences.to_pylist()
          if r["outcome"] == "test/accuracy"}  # fmt: skip
    d = np.array([by["depth=14 attention=none", r] - by["depth=8 attention=none", r] for r in range(BLOCKS)])
    assert row["sd"] == pytest.approx(d.std(ddof=1), abs=1e-12)
    flipped = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert row["p_sign_flip"] == pytest.approx(flipped.pvalue)


def test_attention_and_its_form_are_one_factor_and_other_strata_are_averaged():
    attentions = (("none", "none"), ("se", "mul"), ("se", "add"))
    inputs = study(
        lambda depth, a: (0.03 if a == "se" else 0.0) + (0.01 if depth == 14 else 0.0), attentions=attentions
    )
    rows = accuracy_rows(inputs, factor="attention")
    assert [(r["level"], r["base"], r["n_strata"]) for r in rows] == [("se.mul", "none", 2), ("se.add", "none", 2)]
    assert [r["estimate"] for r in rows] == pytest.approx([0.03, 0.03], abs=1e-12)
    (depth,) = accuracy_rows(inputs, factor="depth")
    assert (depth["estimate"], depth["n_strata"]) == (pytest.approx(0.01, abs=1e-12), 3)
    by = accuracy_rows(inputs, "interactions_by_stratum", factor="attention", level="se.mul")
    assert [(r["stratum"], r["n_strata"]) for r in by] == [("depth=8", 1), ("depth=14", 1)]


def test_three_depths_have_a_slope_per_doubling():
    inputs = study(lambda depth, _: 0.01 * np.log2(depth), depths=(8, 16, 32), noise=0.003)
    rows = accuracy_rows(inputs)
    assert [(r["kind"], r["level"]) for r in rows] == [
        ("difference", "16"), ("difference", "32"), ("slope per doubling", "per doubling"),
    ]  # fmt: skip
    by = {(r["stratum"], r["replicate"]): r["difference"] for r in inputs.differences.to_pylist()
          if r["outcome"] == "test/accuracy"}  # fmt: skip
    slopes = [
        stats.linregress([3, 4, 5], [by[f"depth={d} attention=none", r] for d in (8, 16, 32)]).slope
        for r in range(BLOCKS)
    ]
    assert rows[-1]["estimate"] == pytest.approx(np.mean(slopes), abs=1e-12)
    assert rows[-1]["sd"] == pytest.approx(np.std(slopes, ddof=1), abs=1e-12)
    assert rows[-1]["effect_level"] is None


def test_without_an_interaction_equal_effects_differ_by_exactly_zero_and_p_is_uniform():
    (row,) = accuracy_rows(study(lambda *_: 0.07))
    assert (row["estimate"], row["p_sign_flip"], row["ci_low"], row["ci_high"]) == (0, 1, 0, 0)
    ps = [accuracy_rows(study(lambda *_: 0.01, noise=0.01, seed=s, blocks=6))[0]["p_sign_flip"] for s in range(30)]
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_a_level_in_which_networks_fail_is_counted_and_takes_no_other_with_it():
    attentions = (("none", "none"), ("se", "mul"))
    inputs = study(lambda *_: 0.01, attentions=attentions, fail=[("mul", 14, b) for b in range(8)])
    (row,) = accuracy_rows(inputs, factor="attention")
    # both collapsed levels of attention have one accuracy, so that their effects are equal
    assert (row["n_pairs"], row["n_excluded"], row["n_failures"], row["estimate"]) == (8, 0, 16, 0)
    shallow, deep = accuracy_rows(inputs, "interactions_by_stratum", factor="attention")
    assert (shallow["stratum"], shallow["n_pairs"], shallow["n_failures"]) == ("depth=8", 8, 0)
    assert (deep["stratum"], deep["n_pairs"], deep["n_failures"]) == ("depth=14", 8, 16)


def test_one_level_is_no_interaction_and_datasets_are_a_factor():
    assert accuracy_rows(study(lambda *_: 0.01, depths=(8,))) == []
    book = Book()
    for dataset, block, merge in itertools.product(("digits", "fake"), range(BLOCKS), ("add", "mul")):
        by = (0.05 if dataset == "fake" else 0.02) * (merge == "mul")
        key = book.confirm(merge, 8, block, 0.8 + by, trial_key=f"{dataset}{merge}{block}", config={"dataset": dataset})
        book.contents.replicates[key]["cell"] = f"{dataset} {merge}"
    spec = synthetic_spec(
        factors=[{"merge": ["add", "mul"], "dataset": ["digits", "fake"]}], fixed={"depth": 8}, control=None
    )
    (row,) = accuracy_rows(Inputs(spec=spec, contents=book.contents))
    assert (row["factor"], row["dataset"], row["level"], row["base"]) == ("dataset", "all datasets", "fake", "digits")
    assert row["estimate"] == pytest.approx(0.03, abs=1e-12)
    assert find(build_table(Inputs(spec=spec, contents=book.contents), "effects"), dataset="fake", stratum="all",
                outcome="test/accuracy", claim="C4")  # fmt: skip
