"""Verdicts and their sentences at the edges: comparisons that are not there, looks that disagree, no verdict at all."""

import base64

import numpy as np
import pytest
from book import JACOBIAN, Book, synthetic_spec
from one_depth import SPREAD, study
from one_depth import claims_of as claims_at_one_depth
from one_depth import inputs_of as inputs_at_one_depth

from analysis.claims.amendments import Amendment
from analysis.claims.findings import findings
from analysis.claims.judgement import amend
from analysis.claims.named import misnamed
from analysis.claims.rejudged import changed_verdicts
from analysis.effects.controls import AAResult
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from search_spaces.claims import Assay, Claim

RATIO = "attention_importance_ratio_zero"
NUM_IMAGES = 100


def claim(**changes):
    outcomes = [{"name": "test/accuracy", "margin": 0.02}]
    return {"text": "t", "arm": {"merge": "mul"}, "references": [{"merge": "add"}], "outcomes": outcomes} | changes


def inputs_of(book, merges=("add", "add_alias", "mul", "sig_bn"), **changes):
    given = {"factors": [{"merge": list(merges), "depth": [8]}], "blocks": 10, "claims": {"C4": claim()}} | changes
    return Inputs(spec=synthetic_spec(**given), contents=book.contents, chance={"digits": 0.1, "mnist": 0.1})


def rows_of(inputs):
    return {(row["claim"], row["dataset"]): row for row in build_table(inputs, "claims").to_pylist()}


def with_images(book, merge, block, right):
    """A network that names the test images ``right`` rightly, and says so."""
    record = book.contents.replicates[book.confirm(merge, 8, block, len(right) / NUM_IMAGES)]
    named = np.isin(np.arange(NUM_IMAGES), list(right))
    record |= {"num_test": NUM_IMAGES, "test_correct": base64.b64encode(np.packbits(named).tobytes()).decode()}


def three_images_better(blocks=10):
    """``mul`` names the same three images rightly in every block: sure over replicates, unsure over images."""
    book = Book()
    for block in range(blocks):
        for merge in ("add", "add_alias", "mul"):
            right = set(range(90)) | ({95, 96, 97} if merge == "mul" else set())
            with_images(book, merge, block, right - {block} - ({50} if merge == "mul" and block % 3 == 0 else set()))
    return book


def test_images_count_where_only_one_of_the_comparisons_has_them():
    """The first reference has one pair, too few for a layout of images: the report of a study at work broke on it."""
    book = Book()
    for block in range(10):
        for merge in ("add", "add_alias", "mul", "sig_bn"):
            if merge != "add" or block == 0:
                with_images(book, merge, block, range(93 if merge == "mul" else 90))
    two = claim(references=[{"merge": "add"}, {"merge": "sig_bn"}])
    assert "1 pair, 100 test images counted" in rows_of(inputs_of(book, claims={"C4": two}))["C4", "digits"]["estimand"]


def test_the_hull_decides_in_a_sequential_study_too():
    once = rows_of(inputs_of(three_images_better(), ("add", "add_alias", "mul")))["C4", "digits"]
    looked = rows_of(inputs_of(three_images_better(), ("add", "add_alias", "mul"), sequential={"looks": [8, 10]}))
    assert (once["verdict"], looked["C4", "digits"]["verdict"]) == ("undecided", "undecided")
    assert "100 test images counted" in looked["C4", "digits"]["estimand"]


def looked_at_twice(alias_later):
    """``mul`` is clear at the first look, ``sig_bn`` at none; the control is off by ``alias_later`` from then on."""
    book = Book()
    for block in range(16):
        noise, wide = SPREAD[block % 10], 0.01 + (0.06 if block % 2 else -0.06)
        for merge, by in (("add", 0.0), ("add_alias", noise), ("mul", 0.05 + noise), ("sig_bn", wide)):
            if merge != "mul" or block < 8:
                book.confirm(merge, 8, block, 0.7 + by + (alias_later if merge == "add_alias" and block >= 8 else 0.0))
    claims = {"C4": claim(), "C5": claim(arm={"merge": "sig_bn"})}
    return rows_of(inputs_of(book, blocks=16, claims=claims, sequential={"looks": [8, 16]}))


def test_a_control_that_differs_at_a_later_look_takes_back_what_was_decided():
    assert looked_at_twice(0.0)["C4", "digits"]["verdict"] == "supported"
    row = looked_at_twice(0.2)["C4", "digits"]
    assert (row["verdict"], row["why"], row["look"]) == ("undecided", "control", 1)


def test_a_level_claim_that_has_not_begun_stays_in_the_family():
    level = {"C1": {"text": "t", "arm": {"merge": "sig_bn"}, "outcome": RATIO, "below": 0.5, "above": 0.7}}
    judgements = inputs_of(study(accuracy=0.05), level_claims=level).judgements
    assert {j.name: [part.level for part in j.parts] for j in judgements} == {"C4": [0.025]}


def test_without_a_verdict_the_sentence_rules_nothing_out():
    inputs = inputs_at_one_depth(study(accuracy=0.05))
    made_later = Amendment(texts=("C4: new",), num_known=30, post_hoc=frozenset({"C4"}))
    sentence = {f.name: f.sentence for f in findings(inputs.spec, amend(inputs.judgements, made_later))}["C4"]
    assert sentence == "No verdict: test accuracy is 5 points higher with merge mul than with add."
    one = claims_at_one_depth(study(accuracy=0.05, blocks=1), blocks=1)["C4"]
    assert "cannot tell" not in one["sentence"]


def two_datasets(**given):
    """``sig_bn`` is on digits alone; ``mul`` 5 points better on both."""
    book = Book()
    for block in range(10):
        for dataset, merges in (
            ("digits", ("add", "add_alias", "mul", "sig_bn")),
            ("mnist", ("add", "add_alias", "mul")),
        ):
            for merge in merges:
                reached = 0.9 + (0.05 if merge == "mul" else 0.0) + (SPREAD[block] if merge != "add" else 0.0)
                key = book.confirm(
                    merge, 8, block, reached, config={"dataset": dataset}, trial_key=f"{dataset} {merge} {block}",
                    estimates={RATIO: 0.3 + SPREAD[block]},
                )  # fmt: skip
                book.contents.replicates[key]["cell"] = f"merge={merge},depth=8,dataset={dataset}"
    factors = [
        {"merge": ["add", "add_alias", "mul", "sig_bn"], "depth": [8], "dataset": ["digits"]},
        {"merge": ["add", "add_alias", "mul"], "depth": [8], "dataset": ["mnist"]},
    ]
    return rows_of(inputs_of(book, factors=factors, fixed={"epochs": 6}, **given))


def test_comparisons_that_a_dataset_lacks_are_said_as_such():
    missing = "1 of the claim's comparisons is not in this study on mnist."
    two = two_datasets(claims={"C4": claim(references=[{"merge": "add"}, {"merge": "sig_bn"}])})["C4", "mnist"]
    assert two["why"] == "not estimable" and two["sentence"].endswith(f"than with add; {missing}")
    assert two["change"] == "The comparisons that mnist lacks; more blocks alone do not."
    each = [{"merge": "mul"}, {"merge": "sig_bn"}]
    level = {"C1": {"text": "t", "each": each, "outcome": RATIO, "below": 0.5, "above": 0.7}}
    row = two_datasets(claims={}, level_claims=level)["C1", "mnist"]
    assert row["sentence"] == f"Undecided (not estimable): {missing}" and row["reason"] == missing


def test_an_assay_without_cells_on_a_dataset_is_not_passed_there():
    rows = two_datasets(assay={"arm": {"merge": "mul"}, "reference": {"merge": "sig_bn"}})
    assert rows["C4", "digits"]["verdict"] == "supported"
    assert (rows["C4", "mnist"]["verdict"], rows["C4", "mnist"]["why"]) == ("undecided", "control")


def test_a_positive_control_that_fails_asks_for_no_more_networks():
    control = {"higher": JACOBIAN, "lower": RATIO}
    level = {"arm": {"merge": "mul"}, "control": control, "text": "t", "outcome": RATIO, "below": 0.5, "above": 0.7}
    row = two_datasets(claims={}, level_claims={"C1": level})["C1", "mnist"]
    assert (row["why"], row["change"].startswith("A measurement in which ")) == ("control", True)


def test_what_bars_support_alone_does_not_hide_why_the_interval_decides_nothing():
    wide = [0.04, -0.04, 0.02, -0.02, 0.01, -0.01, 0.03, -0.03, 0.05, -0.05]
    row = claims_at_one_depth(study(jacobian=-0.05, probabilities=0.5, spread=wide))["C3"]
    assert row["why"] == "too few pairs"
    assert row["reason"].startswith("The interval holds both zero and the margin") and "another scale" in row["reason"]
    assert row["change"].startswith("More blocks") and "support" not in row["change"]


@pytest.mark.parametrize(("mean", "state"), [(0.3 - 0.28, "differs"), (0.019, "inside")])
def test_a_margin_but_for_rounding_is_a_margin_to_the_control_too(mean, state):
    numbers = {"n_pairs": 10, "n_excluded": 0, "n_waiting": 0, "margin": 0.02, "mean_difference": mean}
    named = {"dataset": "digits", "arm": "a", "reference": "b", "outcome": "test/accuracy", "scale": "difference"}
    assert AAResult(**named, **numbers, at_90=(mean, mean), at_95=(mean, mean)).state == state


def test_a_changed_verdict_names_the_rule_that_changed_it():
    inputs = inputs_of(two_strata(), factors=[{"merge": ["add", "add_alias", "mul"], "width": [8], "depth": [8, 14]}])
    earlier = {("C4", "digits"): {"verdict": "supported", "reason": ""}}
    ((_, _, now, rules),) = changed_verdicts(inputs.judgements, earlier)
    assert (now, rules) == ("undecided", "support needs that no stratum lies below zero")


def two_strata():
    """``mul`` far above at depth 8 and surely below at 14; strata are named by width and depth."""
    book = Book()
    for block in range(10):
        for depth in (8, 14):
            for merge in ("add", "add_alias", "mul"):
                by = {8: 0.09, 14: -0.02}[depth] if merge == "mul" else 0.0
                book.confirm(merge, depth, block, 0.85 + by + (SPREAD[block] if merge != "add" else 0.0))
    return book


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"references": [{"merge": "add"}, {"merge": "add"}]}, "references lists {'merge': 'add'} twice"),
        (
            {"outcomes": [{"name": "test/accuracy", "margin": x} for x in (0.01, 0.02)]},
            "outcomes lists 'test/accuracy' twice",
        ),
    ],
)
def test_a_comparison_that_stands_twice_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        Claim(**claim(**changes))


def test_the_share_of_an_assay_is_a_number():
    with pytest.raises(ValueError, match="shortened is a share of the epochs, got 'yes'"):
        Assay(arm={"merge": "add", "shortened": "yes"}, reference={"merge": "add", "shortened": 1})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"claims": {"C4": claim(arm={"merge": "mull"})}},
            "C4: no cell of this study has merge 'mull' (did you mean 'mul'?)",
        ),
        (
            {"control": {"arm": {"merge": "alias"}, "reference": {"merge": "add"}}},
            "control: no cell of this study has merge 'alias' (did you mean 'add_alias'?)",
        ),
        (
            {"factors": [{"merge": ["add", "add_alias"], "depth": [8]}, {"merge": ["mul"], "depth": [14]}]},
            "C4: no cell with merge mul has its like with merge add: all other factors must agree, and depth cannot",
        ),
    ],
)
def test_a_claim_on_cells_that_are_not_there_is_refused(changes, told):
    assert misnamed(synthetic_spec(**({"claims": {"C4": claim()}} | changes))) == told
    assert misnamed(synthetic_spec()) == ""


def test_a_supported_claim_says_the_interactions_of_all_its_outcomes():
    book = Book()
    for block in range(10):
        for depth, by in ((8, 2.0), (14, 0.6)):
            for merge in ("add", "add_alias", "mul"):
                noise = 0.0 if merge == "add" else SPREAD[block]
                smoother = {JACOBIAN: 1.0 - (by if merge == "mul" else 0.0) + noise}
                book.confirm(merge, depth, block, 0.9 + (0.03 if merge == "mul" else 0.0) + noise, estimates=smoother)
    outcomes = [{"name": JACOBIAN, "margin": 0.1, "better": "lower"}, {"name": "test/accuracy", "margin": 0.02}]
    factors = [{"merge": ["add", "add_alias", "mul"], "depth": [8, 14]}]
    row = rows_of(inputs_of(book, factors=factors, claims={"C3": claim(outcomes=outcomes)}))["C3", "digits"]
    assert row["verdict"] == "supported" and row["outcome"] == "test/accuracy"
    assert (
        "; the effect on the sensitivity near samples (input Jacobian) depends on depth (14 against 8: "
        in row["sentence"]
    )
