"""Planted effects come back as numbers worked out by hand; what is left out is counted and said."""

import math

import numpy as np
import pytest
from book import EXCESS, JACOBIAN, effects_of, mul, planted, synthetic_spec
from statsmodels.stats.multitest import multipletests

from analysis.claims.judgement import pooled_pairs
from analysis.effects.controls import aa_results
from analysis.effects.table import differences_table, effects_table
from analysis.stats.holm import claim_p, directed_p, holm
from analysis.trials.grid import confirm_grid
from analysis.trials.outcomes import scale_of
from analysis.trials.table import trials_table
from analysis.words.wording import size_text

AT = {"abs": 1e-12}


def test_accuracy_at_one_depth():
    row = mul(effects_of(planted()), "depth=8")
    # d = .01, .02, ... .08
    assert (row["n_pairs"], row["n_excluded"], row["note"]) == (8, 0, "")
    assert row["mean_difference"] == pytest.approx(0.045, **AT)
    assert row["sd_difference"] == pytest.approx(0.01 * math.sqrt(6), **AT)
    assert row["p_sign_flip"] == 2 / 256
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.07 / 3, 0.09 - 0.07 / 3), **AT)
    assert (row["mean_arm"], row["mean_reference"]) == pytest.approx((0.9485, 0.9035), **AT)
    # arm = .011 r, reference = .001 r, difference = .010 r, plus constants
    assert row["pairing_gain"] == pytest.approx(1 - 100 / 122, abs=1e-9)
    assert (row["claim"], row["role"], row["p_holm"]) == ("C4", "exploratory", None)


def test_pooled_over_depths_within_a_replicate_first():
    row = mul(effects_of(planted()))
    # d = (.01 (r + 1) - .01) / 2 = .005 r: one zero among eight, so four patterns are as extreme
    assert (row["n_pairs"], row["role"], row["mean_verdict"]) == (8, "primary", True)
    assert row["mean_difference"] == pytest.approx(0.0175, **AT)
    assert row["p_sign_flip"] == 4 / 256
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.02 / 3, 0.035 - 0.02 / 3), **AT)
    half = 2.3646242510 * 0.005 * math.sqrt(6) / math.sqrt(8)
    assert (row["t_low"], row["t_high"]) == pytest.approx((0.0175 - half, 0.0175 + half), abs=1e-9)
    assert row["mean_difference_survivors"] == pytest.approx(0.0175, **AT)
    assert (row["n_arm_completed"], row["n_reference_completed"], row["mcnemar_p"]) == (16, 16, None)


def test_smoothness_on_both_kinds_of_log_scale():
    effects = effects_of(planted())
    logs = mul(effects, outcome=JACOBIAN)
    assert (logs["scale"], logs["claim"]) == ("difference", "C3")
    assert logs["mean_difference"] == pytest.approx(-0.45, **AT)
    assert (logs["ci_low"], logs["ci_high"], logs["sd_difference"]) == pytest.approx((-0.45, -0.45, 0), **AT)
    ratio = mul(effects, "depth=8", EXCESS)
    pairs = [(0.5 + r / 10, 1 + r / 10) for r in range(8)]
    assert (ratio["scale"], ratio["claim"], ratio["role"]) == ("log ratio", "", "exploratory")
    assert ratio["mean_difference"] == pytest.approx(sum(math.log(a / b) for a, b in pairs) / 8, **AT)
    assert ratio["mean_arm"] == pytest.approx(math.prod(a for a, _ in pairs) ** (1 / 8), **AT)
    assert math.log(ratio["mean_arm"] / ratio["mean_reference"]) == pytest.approx(ratio["mean_difference"], **AT)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("jacobian_unit_logits_mean_log", "difference"),
        ("jacobian_unit_logits_mean", "log ratio"),
        ("jacobian_probabilities_rms", "log ratio"),
        ("path_same_excess_variation_log", "difference"),
        ("path_same_excess_variation_unit_logits", "log ratio"),
        ("noise_16_l1_tempered", "log ratio"),
        ("noise_16_flip_rate", "difference"),
        ("noise_16_accuracy", "difference"),
        ("noise_accuracy_area", "difference"),
        ("frequency_logits_different_above_4", "difference"),
        ("frequency_logits_different_mean_log", "difference"),
        ("path_different_miss_rate", "difference"),
        ("test/loss", "difference"),
    ],
)
def test_scales(name, scale):
    assert scale_of(name) == scale


def test_accuracy_under_noise_is_read_in_percentage_points_too():
    found = [
        size_text(name, "difference", 0.01) for name in ("noise_16_accuracy", "noise_accuracy_area", "test/accuracy")
    ]
    assert found == ["1 pp"] * 3
    assert size_text("noise_16_flip_rate", "difference", 0.01) == "0.01"


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": claim_p([[0.001, 0.04]]), "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    untested = holm({"a": 0.01, "b": claim_p([[0.001, None]]), "c": claim_p([[]])})
    assert untested == {"a": pytest.approx(0.03), "b": None, "c": None}
    assert holm({}) == {}
    ps = np.random.default_rng(0).uniform(0, 0.2, 12).round(2)  # with ties; one call, since each collects garbage
    ours = holm({str(i): p for i, p in enumerate(ps)})
    assert list(ours.values()) == pytest.approx(multipletests(ps, method="holm")[1])
    assert (directed_p(0.2, -1, "lower"), directed_p(0.2, -1, "higher"), directed_p(0.2, 0, "lower")) == (0.2, 1, 1)


def test_holm_over_claims_takes_direction_into_account():
    effects = effects_of(planted())
    # C3 .0078 and C4 .0156: the smaller doubles, the larger stays
    assert mul(effects, outcome=JACOBIAN)["p_holm"] == pytest.approx(4 / 256)
    assert mul(effects)["p_holm"] == pytest.approx(4 / 256)
    spec = synthetic_spec()
    claims = spec.model_dump()["claims"]
    claims["C3"]["outcomes"][0]["better"] = "higher"
    against = effects_of(planted(), synthetic_spec(claims=claims))
    assert mul(against, outcome=JACOBIAN)["p_holm"] == 1
    assert mul(against)["p_holm"] == pytest.approx(8 / 256)


def test_a_claim_takes_the_largest_p_of_its_parts():
    claims = synthetic_spec().model_dump()["claims"]
    claims["C4"]["outcomes"].append({"name": JACOBIAN, "margin": 0.1, "better": "lower"})
    claims["C4"]["references"].append({"merge": "add_alias"})
    effects = effects_of(planted(), synthetic_spec(claims=claims))
    rows = [r for r in effects.to_pylist() if (r["claim"], r["stratum"]) == ("C4", "all")]
    assert [(r["reference"], r["outcome"]) for r in rows] == [
        ("merge=add", "test/accuracy"), ("merge=add", JACOBIAN),
        ("merge=add_alias", "test/accuracy"), ("merge=add_alias", JACOBIAN),
    ]  # fmt: skip
    assert {r["p_holm"] for r in rows} == {max(r["p_sign_flip"] for r in rows)}


def failing_book():
    """As planted, but of ``mul`` at depth 14 two networks collapse, one diverges, one fails; one ``add`` collapses."""
    gone = [("mul", 14, b) for b in (0, 1, 2, 3)] + [("add", 14, 0)]
    book = planted(skip=gone)
    book.confirm("mul", 14, 0, 0.50, state="collapsed", estimates={JACOBIAN: -9.0})
    book.confirm("mul", 14, 1, 0.40, state="collapsed", estimates={JACOBIAN: -9.0})
    book.confirm("mul", 14, 2, math.nan, state="diverged")
    book.replicate("mul", 14, 3, state="failed", reason="out of memory")
    book.confirm("add", 14, 0, 0.30, state="collapsed")
    return book


def test_accuracy_counts_failures_by_what_became_of_them():
    row = mul(effects_of(failing_book(), chance={"digits": 0.1}), "depth=14")
    assert (row["n_pairs"], row["n_excluded"], row["mean_verdict"]) == (7, 1, True)
    # collapsed ones have the accuracy that they have, diverged ones that of guessing; pair 3 was a fault of the machine
    expected = ((0.50 - 0.30) + (0.40 - 0.901) + (0.1 - 0.902) - 4 * 0.01) / 7
    assert row["mean_difference"] == pytest.approx(expected, **AT)
    assert row["mean_difference_survivors"] == pytest.approx(-0.01, **AT)
    states = ("completed", "collapsed", "diverged", "failed")
    assert [row[f"n_arm_{s}"] for s in states] == [4, 2, 1, 1]
    assert [row[f"n_reference_{s}"] for s in states] == [7, 1, 0, 0]
    # judged pairs 0, 1, 2, 4 to 7: both fail in 0, only the arm in 1 and 2
    assert row["mcnemar_p"] == pytest.approx(0.5)
    assert row["note"] == (
        "failed runs: 1; 2 of 8 arm runs collapsed, 1 of 8 arm runs diverged, 1 of 8 reference runs collapsed"
    )


def test_pooling_averages_over_strata_within_a_replicate():
    effects = effects_of(failing_book(), chance={"digits": 0.1})
    row = mul(effects)
    assert (row["n_pairs"], row["n_excluded"]) == (7, 1)
    d = [(0.01 + 0.2) / 2, (0.02 + 0.4 - 0.901) / 2, (0.03 + 0.1 - 0.902) / 2, *(0.005 * r for r in (4, 5, 6, 7))]
    assert row["mean_difference"] == pytest.approx(sum(d) / 7, **AT)
    assert row["mean_arm"] - row["mean_reference"] == pytest.approx(row["mean_difference"], **AT)
    assert row["mean_difference_survivors"] == pytest.approx(0.005 * (4 + 5 + 6 + 7) / 4, **AT)
    # smoothness only where every stratum has it
    assert mul(effects, outcome=JACOBIAN)["n_pairs"] == 4
    assert [row["n_arm_completed"], row["n_arm_collapsed"], row["n_reference_completed"]] == [12, 2, 15]


def test_chance_is_never_guessed():
    effects = effects_of(failing_book())
    row = mul(effects, "depth=14")
    assert (row["n_pairs"], row["n_excluded"]) == (6, 2)
    assert "pairs with a value missing, left out: 1" in row["note"]
    assert mul(effects, "depth=8")["n_pairs"] == 8
    assert mul(effects, "depth=8", JACOBIAN)["mean_difference_survivors"] is None


def test_collapsed_networks_never_look_smooth():
    row = mul(effects_of(failing_book()), "depth=14", JACOBIAN)
    assert row["mean_difference"] == pytest.approx(-0.4, **AT)
    assert (row["n_pairs"], row["mean_verdict"]) == (4, False)
    assert row["note"].startswith("no mean-difference verdict: 4 of 8 pairs ineligible, more than 10%; ")
    assert "2 of 8 arm runs collapsed" in row["note"]


def test_one_ineligible_pair_of_ten_still_allows_a_smoothness_verdict():
    book = planted(10, skip=[("mul", 8, 0)])
    book.confirm("mul", 8, 0, 0.5, state="collapsed", estimates={JACOBIAN: -9.0})
    effects = effects_of(book, synthetic_spec(blocks=10))
    smooth, accuracy = mul(effects, outcome=JACOBIAN), mul(effects)
    assert (smooth["n_pairs"], smooth["n_excluded"], smooth["mean_verdict"]) == (9, 1, True)
    assert smooth["note"] == "1 of 20 arm runs collapsed"
    assert (accuracy["n_pairs"], accuracy["mean_verdict"]) == (10, True)
    # both claims stand in the family of two
    assert (smooth["p_holm"], accuracy["p_holm"]) == (pytest.approx(2 * 2 / 2**9), accuracy["p_sign_flip"])


def test_unconverged_and_missing_estimates_are_left_out_and_said():
    book = planted(skip=[("mul", 8, b) for b in (0, 1, 2)])
    book.measure(book.confirm("mul", 8, 0, 0.91), "input_jacobian", {JACOBIAN: 99.0, EXCESS: 1.0}, converged=False)
    book.measure(book.confirm("mul", 8, 1, 0.92), "input_jacobian", {}, error="out of memory")
    book.measure(book.confirm("mul", 8, 2, 0.93), "input_jacobian", {JACOBIAN: 0.7, EXCESS: 0.0})
    effects = effects_of(book)
    row = mul(effects, "depth=8", JACOBIAN)
    assert (row["n_pairs"], row["n_excluded"]) == (6, 2)
    assert row["mean_difference"] == pytest.approx(-0.5, **AT)
    assert "estimates not converged, left out: 1; completed pairs with a value missing, left out: 1" in row["note"]
    ratio = mul(effects, "depth=8", EXCESS)
    assert (ratio["n_pairs"], ratio["n_excluded"]) == (5, 3)
    assert "completed pairs with a value missing or not positive, left out: 2" in ratio["note"]
    assert mul(effects, "depth=8")["n_pairs"] == 8


def test_pairs_still_to_run_are_no_failures():
    book = planted(skip=[("mul", 8, 6), ("mul", 8, 7), ("add", 8, 7)])
    row = mul(effects_of(book), "depth=8")
    assert (row["n_pairs"], row["n_excluded"], row["mean_verdict"]) == (6, 1, True)
    assert row["note"] == "pairs not run of 8 planned: 2"


def test_unequal_budgets_are_refused():
    book = planted()
    for merge in ("add", "add_alias", "mul"):
        for block in range(8):
            for number in range(2 if (merge, block) != ("mul", 5) else 1):
                book.replicate(merge, 8, block, phase="search", number=number)
    row = mul(effects_of(book), "depth=8")
    assert (row["n_pairs"], row["n_excluded"], row["mean_verdict"]) == (7, 1, False)
    assert row["note"] == "no mean-difference verdict: unequal budgets in 1 pairs"
    book = planted(skip=[("mul", 8, 5)])
    book.confirm("mul", 8, 5, 0.99, epochs=12)
    assert mul(effects_of(book), "depth=8")["note"] == "no mean-difference verdict: unequal budgets in 1 pairs"


def control_of(shift, blocks=8, accuracy_margin=0.01, **changes):
    """The control's result in each outcome, ``add_alias`` being off ``add`` by ``shift(block)`` at both depths."""
    book = planted(blocks, skip=[("add_alias", depth, b) for depth in (8, 14) for b in range(blocks)])
    for block in range(blocks):
        for depth in (8, 14):
            given = {"estimates": {JACOBIAN: 1.0 + block / 10}} | changes.get("given", {})
            book.confirm("add_alias", depth, block, 0.90 + block / 1000 + shift(block), **given)
    claims = synthetic_spec().model_dump()["claims"]
    claims["C4"]["outcomes"][0]["margin"] = accuracy_margin
    spec = synthetic_spec(claims=claims, blocks=blocks)
    grid = confirm_grid(spec, trials_table(spec, book.contents), {"digits": 0.1})
    results = aa_results(spec, effects_table(grid).to_pylist(), pooled_pairs(differences_table(grid)))
    return {result.outcome: result for result in results}


@pytest.mark.parametrize(
    ("shift", "state"),
    [
        (lambda block: 0.012, "differs"),  # the interval excludes zero, and the mean is the margin or more
        (lambda block: 0.008, "inside"),  # it excludes zero, yet lies within the margin
        (lambda block: 0.02 if block % 2 else -0.02, "inconclusive"),  # too wide to say
        (
            lambda block: 0.009 + 0.004 * (-1) ** block,
            "inconclusive",
        ),  # excludes zero, mean below the margin, not within it
        (lambda block: 0.001 if block % 2 else -0.001, "inside"),
    ],
)
def test_the_control_has_three_results(shift, state):
    result = control_of(shift)["test/accuracy"]
    assert (result.state, result.n_pairs, result.margin) == (state, 8, 0.01)
    assert result.mean_difference == pytest.approx(sum(map(shift, range(8))) / 8, **AT)
    assert result.sentence().startswith(
        f"A/A control merge add_alias minus merge add on digits: {state}: test accuracy"
    )
    assert ("every claim is undecided" in result.sentence()) == (state == "differs")


def test_the_control_is_read_on_every_outcome_that_a_claim_names_with_failures_counted():
    results = control_of(lambda block: 0.0)
    assert {name: result.state for name, result in results.items()} == {"test/accuracy": "inside", JACOBIAN: "inside"}
    # an alias that collapses nine times in ten differs: its accuracy is what it ends with
    collapsing = control_of(lambda block: -0.8, 10, given={"state": "collapsed"})
    assert collapsing["test/accuracy"].state == "differs"
    assert collapsing[JACOBIAN].state == "inconclusive"
    assert "no pair of it has near (log Jacobian)" in collapsing[JACOBIAN].sentence()


def test_a_study_without_control_or_before_it_says_so():
    without = synthetic_spec(control=None)
    assert aa_results(without, effects_of(planted(), without).to_pylist(), {}) == []
    early = planted(skip=[("add_alias", depth, b) for depth in (8, 14) for b in range(8)])
    accuracy, smooth = aa_results(synthetic_spec(), effects_of(early).to_pylist(), {})
    assert (accuracy.state, smooth.state, accuracy.n_pairs) == ("not run", "not run", 0)
    # one pair of eight is missing: the control waits
    late = planted(skip=[("add_alias", 8, 3)])
    assert [r.state for r in aa_results(synthetic_spec(), effects_of(late).to_pylist(), {})] == ["not run"] * 2
