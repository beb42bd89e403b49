"""Claims on synthetic studies of each outcome, in frozen words."""

import math

import pytest
from book import JACOBIAN, Book
from one_depth import SPREAD, claims_of, inputs_of, study

from analysis.claims.judgement import judge
from analysis.tables.build import build_table, table_columns
from analysis.words.export import render


def test_supported():
    row = claims_of(study(accuracy=0.03, jacobian=-0.4))["C4"]
    assert row["verdict"] == "supported"
    assert row["sentence"] == "Yes: test accuracy is 3 points higher with merge mul than with add."
    assert row["estimand"] == (
        "Test accuracy differs by 3.00 pp [2.80, 3.20] for merge mul minus add (margin 2 pp, smallest detectable effect "
        "0.26 pp, 10 pairs); none of 10 trainings of merge mul failed, so it fails in at most 26% (95%)."
    )
    assert row["reason"] == "The interval lies above zero and reaches the margin."
    assert row["change"] == "A repetition whose upper limit lies below the margin of 2 pp."
    assert (row["effect"], row["margin"], row["n_pairs"]) == (pytest.approx(0.03), 0.02, 10)


def test_lower_is_better_is_turned_round():
    row = claims_of(study(accuracy=0.03, jacobian=-0.4))["C3"]
    assert (row["verdict"], row["better"], row["effect"]) == ("supported", "lower", pytest.approx(0.4))
    assert row["ci_low"] > 0
    assert row["sentence"] == (
        "Yes: the sensitivity near samples (input Jacobian) is 33% lower with merge mul than with add (among networks that "
        "train)."
    )
    assert row["estimand"] == (
        "Near (log Jacobian) among networks that train differs by 0.400 log [0.377, 0.423], a factor of 1.49, for merge add "
        "minus mul (margin 0.1 log, smallest detectable effect 0.03 log, 10 pairs); none of 10 trainings of merge mul failed, "
        "so it fails in at most 26% (95%)."
    )


def test_refuted():
    row = claims_of(study(accuracy=0.01, jacobian=0.4))
    assert (row["C3"]["verdict"], row["C4"]["verdict"]) == ("refuted", "refuted")
    assert row["C4"]["reason"] == "The upper limit for refutation, 1.23 pp, lies below the margin of 2 pp."
    assert row["C4"]["change"] == ("An effect of at least the margin, 2 pp; these data leave room for 1.23 pp at most.")


def test_undecided_says_how_many_blocks():
    row = claims_of(study(accuracy=0.01, spread=[10 * x for x in SPREAD]))["C4"]
    assert row["verdict"] == "undecided"
    assert row["reason"] == "The interval holds both zero and the margin of 2 pp."
    assert row["change"] == "More blocks: about 66 in all would refute it, if effect and spread stay as they are."
    assert row["smallest_detectable"] == pytest.approx(0.0303, abs=0.0005)


def test_too_few_pairs_cannot_decide():
    row = claims_of(study(accuracy=0.03, blocks=5), blocks=5)["C4"]
    assert (row["verdict"], row["reason"]) == ("undecided", "5 pairs are too few for a verdict.")
    assert "smallest detectable effect none" in row["estimand"]
    assert (row["why"], row["sentence"].split(": ")[0]) == ("too few pairs", "Undecided (too few pairs)")
    assert row["ci_low"] == -math.inf


def test_failures_count_in_accuracy_and_leave_no_smoothness():
    rows = claims_of(study(accuracy=0.03, jacobian=-2.0, fail=[("mul", block) for block in range(9)]))
    row = rows["C4"]
    assert (row["verdict"], row["n_pairs"]) == ("refuted", 10)
    assert row["sentence"] == (
        "No: test accuracy is 67.2 points lower with merge mul than with add (merge mul fails in 9 of 10 trainings, merge add "
        "in 0 of 10); an advantage of 2 points is ruled out."
    )
    assert row["effect"] == pytest.approx((9 * (0.2 - 0.95) + 0.03) / 10)
    assert row["estimand"].startswith(
        "Merge mul fails in 9 of 10 trainings, merge add in 0 of 10 (exact McNemar p = 0.004); test accuracy, failures "
        "counted, differs by -67.20 pp ["
    )
    assert row["estimand"].endswith("; among pairs in which both train: 3.00 pp for merge mul minus add.")
    assert row["effect_survivors"] == pytest.approx(0.03)
    assert (row["arm_failures"], row["arm_trainings"], row["mcnemar_p"]) == (9, 10, 2 / 2**9)
    smooth = rows["C3"]
    assert (smooth["verdict"], smooth["why"]) == ("undecided", "not estimable")
    assert smooth["reason"] == "Not estimable: 9 of 10 pairs are ineligible, more than 10%."
    assert smooth["change"].startswith("9 of 10 networks of mul at depth 8 collapsed: trainings that do not fail")


def test_one_collapse_of_ten_keeps_the_smoothness_verdict():
    rows = claims_of(study(accuracy=0.03, jacobian=-0.4, fail=[("mul", 3)]))
    assert (rows["C3"]["verdict"], rows["C4"]["verdict"]) == ("supported", "undecided")
    assert (rows["C3"]["n_pairs"], rows["C4"]["n_pairs"], rows["C4"]["why"]) == (9, 10, "too few pairs")


@pytest.mark.parametrize(
    ("changes", "made", "reason"),
    [
        ({}, {"alias": 0.03}, "The A/A control differs by its margin or more on digits."),
        ({"control": None}, {}, "This study has no A/A control, which every verdict needs."),
    ],
)
def test_without_a_sound_control_nothing_is_decided(changes, made, reason):
    rows = claims_of(study(accuracy=0.03, jacobian=0.4, **made), **changes)
    assert {row["verdict"] for row in rows.values()} == {"undecided"}
    assert {row["reason"] for row in rows.values()} == {reason}


def test_one_block_and_a_demonstration_are_said():
    book = Book()
    for seed in range(6):
        for merge in ("add", "add_alias", "mul"):
            key = book.confirm(merge, 8, 0, 0.95 + 0.03 * (merge == "mul"), trial_key=f"{merge}{seed}")
            book.contents.replicates[key]["replicate"] = seed
    rows = claims_of(book, blocks=1, replicates=6, demonstration=True)
    row = rows["C4"]
    assert (row["verdict"], row["qualifier"]) == ("no verdict", "at these hyperparameters; demonstration")
    assert row["sentence"].startswith("No verdict: test accuracy is 3 points higher with merge mul than with add")


def test_an_unfinished_study_waits():
    book = study(accuracy=0.03, blocks=8)
    row = claims_of(book)["C4"]
    assert (row["verdict"], row["reason"]) == ("undecided", "2 of 10 pairs have not run yet.")
    assert row["change"] == "The pairs still to run: the same command continues."
    empty = claims_of(Book())["C4"]
    assert (empty["verdict"], empty["reason"]) == ("undecided", "10 of 10 pairs have not run yet.")
    assert "no pair is left to compare test accuracy (margin 2 pp)" in empty["estimand"].lower()


@pytest.mark.parametrize(("probabilities", "verdict"), [(-0.2, "supported"), (0.2, "undecided"), (0.0, "supported")])
def test_opposite_signs_between_scales_decide_nothing(probabilities, verdict):
    row = claims_of(study(jacobian=-0.4, probabilities=probabilities))["C3"]
    assert row["verdict"] == verdict
    if verdict == "undecided":
        assert row["why"] == "contradiction"
        assert row["reason"] == (
            "On another scale the interval lies on the other side (jacobian probabilities mean log)."
        )


def test_comparators_and_co_primaries():
    claims = {
        "C2": {"text": "all", "arm": {"merge": "mul"}, "references": [{"merge": "add"}, {"merge": "add_alias"}],
               "outcomes": [{"name": "test/accuracy", "margin": 0.02}]},
        "C3": {"text": "both", "arm": {"merge": "mul"}, "references": [{"merge": "add"}],
               "outcomes": [{"name": "test/accuracy", "margin": 0.02}, {"name": JACOBIAN, "margin": 0.1, "better": "lower"}]},
    }  # fmt: skip
    held = claims_of(study(accuracy=0.03, jacobian=-0.4), claims=claims)
    assert (held["C2"]["verdict"], held["C3"]["verdict"]) == ("supported", "supported")
    assert held["C3"]["reason"] == "In every comparison the interval lies above zero and reaches the margin."
    rough = claims_of(study(accuracy=0.03, jacobian=0.4), claims=claims)["C3"]
    assert (rough["verdict"], rough["outcome"]) == ("refuted", JACOBIAN)
    assert (rough["level"], rough["level_refute"]) == pytest.approx((0.05, 0.05 / 2 / 2))
    parts = build_table(inputs_of(study(accuracy=0.03, jacobian=0.4), claims=claims), "claim_parts").to_pylist()
    alone = [(part["claim"], part["reference"], part["outcome"], part["verdict"]) for part in parts]
    assert sorted(alone) == [
        ("C2", "merge=add", "test/accuracy", "supported"),
        ("C2", "merge=add_alias", "test/accuracy", "supported"),
        ("C3", "merge=add", JACOBIAN, "refuted"),
        ("C3", "merge=add", "test/accuracy", "supported"),
    ]


@pytest.mark.parametrize(("loss", "seen"), [(0.3, "seen"), (0.0, "not seen"), (None, "not run")])
def test_assay_sensitivity(loss, seen):
    factors = [{"merge": ["add", "add_alias", "mul", "none"], "depth": [8]}]
    book = study(accuracy=0.03)
    for block in range(10):
        if loss is not None:
            book.confirm("none", 8, block, 0.95 - loss - SPREAD[block])
    assay = {"arm": {"merge": "add"}, "reference": {"merge": "none"}}
    row = claims_of(book, factors=factors, assay=assay)["C4"]
    assert (row["assay"], row["verdict"]) == (seen, "supported" if seen == "seen" else "undecided")
    inputs = inputs_of(book, factors=factors, assay=assay)
    (result,) = inputs.assay
    assert result.seen is {"seen": True, "not seen": False, "not run": None}[seen]
    said = {"not seen": "a known difference (merge add minus merge none) is not seen"}
    said["not run"] = "the check of assay sensitivity has not run yet"
    for judged in judge(inputs.spec, inputs.effects, inputs.differences, inputs.assay):
        assert judged.controls == ((said[seen],) if seen in said else ()) and judged.amended == ""


def test_an_assay_is_read_where_it_is_declared_and_counts_failures():
    factors = [{"merge": ["add", "add_alias", "mul", "none"], "depth": [8, 14]}]
    book = study(accuracy=0.03)
    for block in range(10):
        book.confirm("none", 8, block, 0.95)
        book.confirm("add", 14, block, 0.95)
        book.confirm("none", 14, block, 0.15, state="collapsed")
    deep = {"arm": {"merge": "add", "depth": 14}, "reference": {"merge": "none", "depth": 14}}
    (result,) = inputs_of(book, factors=factors, assay=deep).assay
    assert (result.seen, result.n_pairs, result.mean_difference) == (True, 10, pytest.approx(0.8))
    assert "merge add depth 14 minus merge none depth 14: 80.00 pp" in result.sentence()
    (shallow,) = inputs_of(book, factors=factors, assay={side: deep[side] | {"depth": 8} for side in deep}).assay
    assert shallow.seen is False
    assert inputs_of(book, factors=factors).assay == []


GOLDEN = """\
| Claim   | Text     | Dataset   | Verdict   | Undecided for   | Label         | Outcome             |                   Effect |   Level |   Margin |   Smallest detectable |   Pairs |   McNemar p | Reason                                                                  | What would change it                                                               |
|:--------|:---------|:----------|:----------|:----------------|:--------------|:--------------------|-------------------------:|--------:|---------:|----------------------:|--------:|------------:|:------------------------------------------------------------------------|:-----------------------------------------------------------------------------------|
| C3      | smoother | digits    | supported |                 | demonstration | near (log Jacobian) | 0.400 log [0.377, 0.423] |   0.025 |  0.1 log |              0.03 log |      10 |             | The interval lies above zero and reaches the margin.                    | A repetition whose upper limit lies below the margin of 0.1 log.                   |
| C4      | better   | digits    | refuted   |                 | demonstration | test accuracy       |     1.00 pp [0.80, 1.20] |    0.05 |     2 pp |               0.26 pp |      10 |             | The upper limit for refutation, 1.23 pp, lies below the margin of 2 pp. | An effect of at least the margin, 2 pp; these data leave room for 1.23 pp at most. |
"""  # noqa: E501


def test_golden_claims_table():
    table = build_table(inputs_of(study(accuracy=0.01, jacobian=-0.4), demonstration=True), "claims")
    text = render(table, "md", table_columns("claims")).decode()
    assert text == GOLDEN
