"""Each rule of the verdict on a case written by hand, that without the rule would end otherwise."""

import math

import numpy as np
import pytest
from book import JACOBIAN, Book
from one_depth import PROBABILITIES, SPREAD, claims_of, inputs_of, study
from scipy import stats

from analysis.stats.holm import claim_p, holm_levels
from analysis.stats.signflip import sign_flip_interval
from analysis.stats.verdicts import Limits, claim_verdict
from analysis.tables.build import build_table
from search_spaces.load import SpecError
from study.errors import UserError

ACCURACY = {"name": "test/accuracy", "margin": 0.02}
FAMILY = ("mul", "sig_bn", "gate")


def accuracy_claim(**changes):
    return {"text": "t", "arm": {"merge": "mul"}, "references": [{"merge": "add"}], "outcomes": [ACCURACY]} | changes


def family_claim(*arms, **changes):
    named = {"arm": {}, "arms": [{"merge": merge} for merge in arms]}
    return {"C4": accuracy_claim(**named, **changes)}


def arms_study(effects, blocks=10, fail=(), missing=(), smooth=None, wide=()):
    """One depth, several operators: each off ``add`` by its effect, and by a spread of its own."""
    book = Book()
    for block in range(blocks):
        for place, (merge, by) in enumerate({"add": 0.0, "add_alias": 0.0, **effects}.items()):
            if (merge, block) in missing:
                continue
            noise = 0.0 if merge == "add" else SPREAD[(block + place) % 10] * (20 if merge in wide else 1)
            state = "collapsed" if (merge, block) in fail else "completed"
            values = {JACOBIAN: 1.0 + (smooth or {}).get(merge, 0.0) + 10 * noise}
            book.confirm(
                merge, 8, block, 0.3 if state == "collapsed" else 0.9 + by + noise, state=state, estimates=values
            )
    return book


def family_of(effects, claims=None, **given):
    factors = [{"merge": ["add", "add_alias", *effects], "depth": [8]}]
    return claims_of(arms_study(effects, **given), factors=factors, claims=claims or family_claim(*effects))["C4"]


# 1. Levels


def test_support_is_at_holms_level_and_refutation_at_a_fixed_one():
    """The first claim is supported, so Holm tests the second at alpha; it is refuted at alpha / 2 all the same."""
    rows = claims_of(study(accuracy=0.014, jacobian=-0.4, spread=[3 * x for x in SPREAD]))
    assert (rows["C3"]["verdict"], rows["C4"]["level"], rows["C4"]["level_refute"]) == ("supported", 0.05, 0.025)
    d = np.array([0.014 + 3 * x for x in SPREAD])
    holms, fixed = sign_flip_interval(d, 0.05)[1], sign_flip_interval(d, 0.025)[1]
    margin = (holms + fixed) / 2  # refuted at Holm's level, not at the fixed one
    claims = {"C3": dict(JACOBIAN_CLAIM), "C4": accuracy_claim(outcomes=[ACCURACY | {"margin": margin}])}
    row = claims_of(study(accuracy=0.014, jacobian=-0.4, spread=[3 * x for x in SPREAD]), claims=claims)["C4"]
    assert (row["verdict"], row["level"]) == ("undecided", 0.05)
    assert row["ci_high"] < margin < row["ci_high_refute"]


JACOBIAN_CLAIM = {
    "text": "smoother",
    "arm": {"merge": "mul"},
    "references": [{"merge": "add"}],
    "outcomes": [{"name": JACOBIAN, "margin": 0.1, "better": "lower"}],
}


def test_a_level_claim_is_refuted_at_the_fixed_level_too():
    level = {"text": "low", "arm": {"merge": "mul"}, "outcome": JACOBIAN, "below": 0.2, "above": 0.3}
    rows = claims_of(study(jacobian=-0.4), level_claims={"C1": level})
    assert (rows["C1"]["verdict"], rows["C1"]["level_refute"]) == ("refuted", pytest.approx(0.05 / 3))


# 2. Composite accuracy: see test_analysis_effects and test_analysis_claims; what stands beside a support is here.


def test_beside_a_support_stands_the_failure_rate_that_nobody_has_seen():
    estimand = claims_of(study(accuracy=0.03))["C4"]["estimand"]
    assert estimand.endswith("none of 10 trainings of merge mul failed, so it fails in at most 26% (95%).")
    assert pytest.approx(0.26, abs=0.005) == 1 - 0.05 ** (1 / 10)
    assert stats.binomtest(1, 10).proportion_ci(0.9, "exact").high == pytest.approx(stats.beta.ppf(0.95, 2, 9))


def test_a_fault_of_the_machine_is_no_outcome():
    book = study(accuracy=0.03)
    for record in book.contents.replicates.values():
        if (record["config"]["merge"], record["block"]) == ("mul", 2):
            record["state"] = "failed"
    row = claims_of(book)["C4"]
    assert (row["n_pairs"], row["n_excluded"], row["arm_failures"]) == (9, 1, 0)


# 3. Smoothness


def test_another_scale_bars_support_only_where_its_interval_excludes_zero():
    held = claims_of(study(jacobian=-0.4, probabilities=-0.2))["C3"]
    assert held["verdict"] == "supported"
    against = claims_of(study(jacobian=-0.4, probabilities=0.2))["C3"]
    assert (against["verdict"], against["why"]) == ("undecided", "contradiction")
    # the same sign of the mean, with an interval that holds zero, bars nothing
    book = study(jacobian=-0.4, probabilities=0.0)
    for record in book.contents.measures.values():
        if "mul" in record["trial_key"]:
            block = book.contents.replicates[record["trial_key"]]["block"]
            record["estimates"][PROBABILITIES]["value"] += 0.05 + (0.5 if block % 2 else -0.5)
    unsure = claims_of(book)["C3"]
    assert unsure["verdict"] == "supported"


def test_another_scale_never_bars_refutation():
    # rougher in unit logits, smoother in probabilities
    assert claims_of(study(jacobian=0.4, probabilities=-0.2))["C3"]["verdict"] == "refuted"


# 4. Families


def test_a_family_is_supported_by_any_arm_at_the_level_over_its_number():
    row = family_of({"mul": -0.2, "sig_bn": 0.05, "gate": 0.0})
    assert (row["verdict"], row["arm"]) == ("supported", "merge=sig_bn")
    assert row["level"] == pytest.approx(0.05 / 3)
    assert "with merge sig_bn than with add, where any of 3 arms would do" in row["sentence"]


def test_a_family_is_refuted_only_if_every_arm_is():
    every = family_of({"mul": -0.2, "sig_bn": 0.0, "gate": 0.005})
    assert every["verdict"] == "refuted" and every["level_refute"] == 0.05  # no price for the number of arms
    assert every["sentence"].startswith("No: even for the best of 3, ")
    open_arm = family_of({"mul": -0.2, "sig_bn": 0.0, "gate": 0.0}, wide=["sig_bn"])
    assert open_arm["verdict"] == "undecided"
    assert open_arm["sentence"].endswith("; of the 3 arms 2 are ruled out (merge mul, merge gate).")


def test_an_arm_that_waits_or_is_barred_bars_refutation_only():
    waits = family_of({"mul": -0.2, "sig_bn": 0.0}, missing=[("sig_bn", 9)])
    assert (waits["verdict"], waits["why"]) == ("undecided", "waiting")
    supported = family_of({"mul": -0.2, "sig_bn": 0.05, "gate": 0.0}, missing=[("gate", 9)])
    assert supported["verdict"] == "supported"
    both = [{"name": JACOBIAN, "margin": 0.1, "better": "lower"}]
    barred = {"smooth": {"sig_bn": 0.5, "mul": 0.5}, "fail": [("mul", b) for b in range(3)]}
    row = family_of({"mul": 0.0, "sig_bn": 0.0}, family_claim("mul", "sig_bn", outcomes=both), **barred)
    assert (row["verdict"], row["why"]) == ("undecided", "not estimable")


def test_an_arm_must_hold_in_all_parts_itself():
    """One arm holds in accuracy, another in smoothness: no arm holds in both."""
    both = [ACCURACY, {"name": JACOBIAN, "margin": 0.1, "better": "lower"}]
    claims = family_claim("mul", "sig_bn", outcomes=both)
    split = family_of({"mul": 0.05, "sig_bn": 0.0}, claims, smooth={"mul": 0.5, "sig_bn": -0.5})
    assert split["verdict"] == "refuted"  # each arm has a part that is refuted
    whole = family_of({"mul": 0.05, "sig_bn": 0.0}, claims, smooth={"mul": -0.5, "sig_bn": 0.5})
    assert (whole["verdict"], whole["arm"]) == ("supported", "merge=mul")


def test_the_p_of_a_family_by_hand():
    assert claim_p([[0.01, 0.02], [0.001, 0.5], [0.004]]) == pytest.approx(3 * 0.004)
    assert claim_p([[None, 0.001], [0.02]]) == pytest.approx(2 * 0.02)  # the price is of the arms planned
    assert claim_p([[None], []]) is None and claim_p([[0.9], [0.8]]) == 1.0
    assert holm_levels({"family": claim_p([[0.01], [0.5]]), "other": 0.03}, 0.05)["family"] == 0.025
    holds, falls = Limits(low=1, high=3, high_refute=3, margin=2), Limits(low=0, high=1, high_refute=1, margin=2)
    assert claim_verdict([[holds, falls], [holds]], num_blocks=10) == "supported"
    assert claim_verdict([[falls], [falls, holds]], num_blocks=10) == "refuted"
    assert claim_verdict([[falls], [None]], num_blocks=10) == "undecided"
    assert claim_verdict([[falls], []], num_blocks=10) == "undecided"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"arm": {}}, "needs either arm or arms, got neither"),
        ({"arms": [{"merge": "mul"}, {"merge": "sig_bn"}]}, "needs either arm or arms, got both"),
        ({"arm": {}, "arms": [{"merge": "mul"}]}, "arms has one arm"),
        ({"arm": {}, "arms": [{"merge": "mul"}, {"merge": "mul"}]}, "lists {'merge': 'mul'} twice"),
        ({"arm": {}, "arms": [{"merge": "mul"}, {"depth": 8}]}, "must name the same factors in each arm"),
    ],
)
def test_impossible_families_are_refused(claim, message):
    with pytest.raises((SpecError, UserError, ValueError), match=message):
        inputs_of(Book(), claims={"C4": accuracy_claim(**claim)})


# 5. The A/A control: see test_analysis_effects; what it does to verdicts is here.


def test_an_inconclusive_control_is_said_beside_a_verdict_that_stands():
    book = study(accuracy=0.05)
    for record in book.contents.replicates.values():
        if record["config"]["merge"] == "add_alias":
            record["metrics"]["test/accuracy"] += 0.08 if record["block"] % 2 else -0.08
    row = claims_of(book)["C4"]
    assert (row["verdict"], row["aa"]) == ("supported", "inconclusive")
    assert row["sentence"].endswith("; the A/A control is inconclusive in test accuracy.")


def test_an_alias_that_differs_in_smoothness_alone_leaves_every_claim_undecided():
    book = study(accuracy=0.05, jacobian=-0.4)
    for record in book.contents.measures.values():
        if "add_alias" in record["trial_key"]:
            record["estimates"][JACOBIAN]["value"] += 0.3
    rows = claims_of(book)
    assert {(row["verdict"], row["why"], row["aa"]) for row in rows.values()} == {("undecided", "control", "differs")}


# 6. Strata


def two_depths(at_8, at_14):
    book = Book()
    for block in range(10):
        for depth, by in ((8, at_8), (14, at_14)):
            for merge in ("add", "add_alias", "mul"):
                shift = 0.0 if merge == "add" else SPREAD[block]
                book.confirm(merge, depth, block, 0.9 + shift + by * (merge == "mul"))
    factors = [{"merge": ["add", "add_alias", "mul"], "depth": [8, 14]}]
    return claims_of(book, factors=factors, claims={"C4": accuracy_claim()})["C4"]


def test_pooled_support_needs_that_no_stratum_lies_below_zero():
    row = two_depths(0.08, -0.02)
    assert row["effect"] == pytest.approx(0.03) and row["ci_low"] > 0
    assert (row["verdict"], row["why"]) == ("undecided", "contradiction")
    assert row["reason"] == "The whole interval lies below zero at depth 14."
    # one that holds zero is not below it, and the interaction is said
    mild = two_depths(0.06, 0.0)
    assert mild["verdict"] == "supported"
    assert "; the effect depends on depth (14 against 8: -6.0 points)." in mild["sentence"]
    assert "depends on" not in two_depths(0.03, 0.03)["sentence"]


# 7. The hull of two intervals: see test_analysis_images.


# 8. Reported plainly


def test_skewed_differences_are_shown():
    spread = [0.0, 0.001, 0.002, 0.001, 0.0, 0.001, 0.002, 0.001, 0.05, 0.001]
    part = build_table(inputs_of(study(accuracy=0.03, spread=spread)), "claim_parts").to_pylist()[-1]
    d = np.array(spread) + 0.03
    assert part["skewness"] == pytest.approx(((d - d.mean()) ** 3).mean() / d.std() ** 3)
    assert part["p_symmetry"] == pytest.approx(stats.skewtest(d).pvalue) and part["p_symmetry"] < 0.01
    even = build_table(inputs_of(study(accuracy=0.03)), "claim_parts").to_pylist()[-1]
    assert even["p_symmetry"] > 0.2


def test_an_arm_that_fails_more_often_than_the_reference_is_never_the_best():
    def best(fail):
        book = arms_study({"mul": 0.05}, fail=fail)
        factors = [{"merge": ["add", "add_alias", "mul"], "depth": [8]}]
        rows = build_table(inputs_of(book, factors=factors, claims={}), "accuracy").to_pylist()
        return {row["arm"]: (row["best"], row["p_others"]) for row in rows}["mul"]

    flag, p = best([])
    assert flag and p <= 0.05
    flag, p = best([("mul", 9)])  # nine of ten pairs are eligible, and all of them agree
    assert not flag and p <= 0.05


# 9. Claims on levels with a positive control, each of several arms


LEVEL = {
    "text": "weak",
    "arm": {"merge": "mul"},
    "outcome": "agreement",
    "below": 0.5,
    "above": 0.7,
    "control": {"higher": "activation", "lower": "gate"},
}


def levels(agreement, activation, gate, each=("mul",), **changes):
    book = Book()
    for block in range(10):
        noise = SPREAD[block]
        for merge in ("add", "add_alias", "mul", "sig_bn"):
            key = book.confirm(merge, 8, block, 0.9 + noise * (merge != "add"))
            value = agreement if isinstance(agreement, float) else agreement.get(merge, 0.0)
            book.measure(
                key, "importance", {"agreement": value + noise, "activation": activation, "gate": gate + noise}
            )
    arms = {} if len(each) == 1 else {"arm": {}, "each": [{"merge": merge} for merge in each]}
    factors = [{"merge": ["add", "add_alias", "mul", "sig_bn"], "depth": [8]}]
    return claims_of(book, factors=factors, claims={}, level_claims={"C1": LEVEL | arms | changes})["C1"]


def test_a_level_is_believed_only_if_its_positive_control_shows():
    assert levels(0.2, 0.6, 0.3)["verdict"] == "supported"
    blind = levels(0.2, 0.3, 0.3)
    assert (blind["verdict"], blind["why"]) == ("undecided", "control")
    assert blind["reason"] == "The positive control does not show: activation is not surely above gate."
    assert levels(0.2, 0.3, 0.3, control=None)["verdict"] == "supported"


def test_a_level_claim_on_several_arms_must_hold_of_each():
    both = ("mul", "sig_bn")
    assert levels({"mul": 0.2, "sig_bn": 0.3}, 0.6, 0.3, both)["verdict"] == "supported"
    assert levels({"mul": 0.2, "sig_bn": 0.6}, 0.6, 0.3, both)["verdict"] == "undecided"
    one = levels({"mul": 0.2, "sig_bn": 0.8}, 0.6, 0.3, both)
    assert (one["verdict"], one["arm"], one["level_refute"]) == ("refuted", "merge=sig_bn", 0.025)


# 10. Assay sensitivity: see test_analysis_claims; its trainings may be shortened ones.


def test_an_assay_may_compare_shortened_trainings_with_whole_ones():
    def with_short(loss):
        book = study(accuracy=0.03)
        for block in range(10):
            book.replicate(
                "add", 8, block, phase="short", epochs=3, config={"epochs": 3}, number=3, state="completed",
                metrics={"test/accuracy": 0.95 - loss - SPREAD[block]},
            )  # fmt: skip
        return book

    assay = {"arm": {"merge": "add", "shortened": 1}, "reference": {"merge": "add", "shortened": 0.5}}
    given = {"assay": assay, "budget": {"search_trials": 2, "startup_trials": 1, "shortened": [0.5]}}
    (seen,) = inputs_of(with_short(0.1), **given).assay
    assert (seen.seen, seen.n_pairs, seen.mean_difference) == (True, 10, pytest.approx(0.1))
    assert claims_of(with_short(0.1), **given)["C4"]["verdict"] == "supported"
    row = claims_of(with_short(0.0), **given)["C4"]
    assert (row["verdict"], row["why"], row["assay"]) == ("undecided", "control", "not seen")
    assert row["reason"] == ("A known difference (merge add shortened 100% minus merge add shortened 50%) is not seen.")
    with pytest.raises((SpecError, ValueError), match=r"shortened is 0\.5, and budget\.shortened has 1"):
        inputs_of(Book(), assay=assay)


# What a claim presupposes


def test_a_claim_says_that_what_it_presupposes_is_refuted():
    helps = accuracy_claim(arm={"merge": "sig_bn"}, text="attention helps")
    claims = {"C2": accuracy_claim(presupposes="C5"), "C5": helps}
    row = claims_of(
        arms_study({"mul": 0.05, "sig_bn": 0.0}),
        factors=[{"merge": ["add", "add_alias", "mul", "sig_bn"], "depth": [8]}],
        claims=claims,
    )["C2"]
    assert row["verdict"] == "supported"
    assert row["sentence"].endswith("; C5 is refuted, so there is no such effect to explain.")
    with pytest.raises((SpecError, ValueError), match="presupposes 'C9', which is no other claim"):
        inputs_of(Book(), claims={"C2": accuracy_claim(presupposes="C9")})


def test_every_undecided_claim_says_which_of_the_reasons():
    wide = [20 * x for x in SPREAD]
    cases = {
        "too few pairs": claims_of(study(accuracy=0.02, spread=wide)),
        "waiting": claims_of(study(accuracy=0.03, blocks=9)),
        "not estimable": {"C4": claims_of(study(jacobian=-0.4, fail=[("mul", 1), ("mul", 2)]))["C3"]},
        "control": claims_of(study(accuracy=0.03, alias=0.05)),
        "contradiction": {"C4": claims_of(study(jacobian=-0.4, probabilities=0.2))["C3"]},
    }
    for why, rows in cases.items():
        row = rows["C4"]
        assert (row["verdict"], row["why"]) == ("undecided", why)
        assert row["sentence"].startswith(f"Undecided ({why}): ") and math.isfinite(len(row["reason"]))
