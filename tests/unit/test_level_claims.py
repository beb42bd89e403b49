"""C1's kind of claim: how high an outcome is in the arm's networks, one Holm family with the claims on differences."""

import numpy as np
import pytest
from book import Book, effects_of, find, synthetic_spec

from analysis.inputs import Inputs
from analysis.report.page import render_report
from analysis.stats.signflip import sign_flip_interval
from analysis.tables.build import build_table
from search_spaces import SpecError
from search_spaces.load import parse_spec

NAME = "attention_importance_ratio_zero"
C1 = {"text": "weakly consistent", "arm": {"merge": "mul"}, "outcome": NAME, "below": 0.5, "above": 0.7}
AA = 0.0001


def study(level: float, *, num: int = 8, spread: float = 0.02, unconverged: int = 0, alias: float = AA) -> Book:
    """``mul`` has the outcome around ``level``, .1 higher at depth 14; the control has no difference to speak of."""
    book = Book()
    for block in range(num):
        for depth in (8, 14):
            sign = 1 if block % 2 else -1
            book.confirm("add", depth, block, 0.9)
            book.confirm("add_alias", depth, block, 0.9 + sign * alias)
            key = book.confirm("mul", depth, block, 0.95 + 0.001 * block)
            value = level + (0.05 if depth == 14 else -0.05) + spread * (block - (num - 1) / 2)
            book.measure(key, "attention_importance", {NAME: value}, converged=block >= unconverged)
    return book


def inputs(book: Book, **changes) -> Inputs:
    spec = synthetic_spec(**{"claims": {}, "level_claims": {"C1": C1}, "blocks": 8} | changes)
    return Inputs(spec=spec, contents=book.contents)


def claim(found: Inputs) -> dict:
    (row,) = build_table(found, "claims").to_pylist()
    return row


@pytest.mark.parametrize(
    ("level", "verdict"), [(0.2, "supported"), (0.9, "refuted"), (0.6, "undecided"), (0.49, "undecided")]
)
def test_the_verdict_rule(level, verdict):
    row = claim(inputs(study(level)))
    assert (row["verdict"], row["claim"], row["n_pairs"], row["scale"]) == (verdict, "C1", 8, "level")
    # the unit is the network: depths are averaged within a replicate, and the interval inverts the sign-flip test
    values = level + 0.02 * (np.arange(8) - 3.5)
    assert row["effect"] == pytest.approx(level)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(sign_flip_interval(values, 0.05))
    assert row["reference"] == "below 0.5, above 0.7"


def test_a_failed_control_or_too_few_networks_leave_it_undecided():
    failed = claim(inputs(study(0.2), control=None))
    assert failed["verdict"] == "undecided" and "no A/A control" in failed["reason"]
    half = claim(inputs(study(0.2, num=5)))
    assert half["verdict"] == "undecided" and half["n_waiting"] == 3
    assert "3 of 8 networks have not run yet" in half["reason"]


def test_networks_without_a_converged_value_are_left_out_and_forbid_a_verdict_when_many():
    one = claim(inputs(study(0.2, num=16, unconverged=1), blocks=16))
    assert (one["verdict"], one["n_pairs"], one["n_excluded"]) == ("supported", 15, 1)
    two = claim(inputs(study(0.2, unconverged=1)))
    assert (two["verdict"], two["n_pairs"], two["n_excluded"]) == ("undecided", 7, 1)
    assert "1 of 8 networks are ineligible, more than 10%" in two["reason"]


def test_one_holm_family_with_the_claims_on_differences():
    claims = synthetic_spec().model_dump()["claims"]
    spec = synthetic_spec(level_claims={"C1": C1})
    found = Inputs(spec=spec, contents=study(0.2).contents)
    levels = {row["claim"]: row["level"] for row in build_table(found, "claims").to_pylist()}
    # three claims: C1 and C4 are rejected at the first two steps, C3 (not measured here) keeps the last
    assert sorted(levels) == ["C1", *sorted(claims)]
    assert sorted(levels.values()) == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])
    before, after = (
        find(effects, claim="C4", stratum="all")["p_holm"]
        for effects in (effects_of(study(0.2), synthetic_spec()), found.effects)
    )
    assert after > before


def test_the_report_and_the_sentence_say_it():
    found = inputs(study(0.2))
    (finding,) = found.findings
    assert finding.verdict == "supported" and "supported below 0.5" in finding.estimand
    assert "8 networks" in finding.estimand and finding.sentence.endswith("is 0.2 with merge mul, below 0.5.")
    assert finding.sentence in render_report(found, {}, {}).replace("&#39;", "'")


def test_one_block_gives_no_verdict():
    row = claim(inputs(study(0.2, num=1), blocks=1))
    assert row["verdict"] == "no verdict"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": {"mrege": "mul"}}, "level_claims.C1 names 'mrege', which is no factor of this study"),
        ({"below": 0.8}, "needs below <= above, got below=0.8, above=0.7"),
    ],
)
def test_impossible_level_claims_are_refused(change, message):
    arm = (C1 | change)["arm"]
    text = f"""
name: x
factors: {{merge: [add, mul]}}
fixed: {{dataset: fake, depth: 8}}
blocks: 2
budget: {{search_trials: 0, startup_trials: 0}}
level_claims: {{C1: {{text: t, arm: {{{next(iter(arm))}: mul}}, outcome: o, below: {(C1 | change)["below"]}, above: 0.7}}}}
"""
    with pytest.raises(SpecError, match=message):
        parse_spec(text, "test")


def test_advice_names_the_network_the_reason_and_the_setting():
    """Estimates that did not converge, beside what they hang on; failures are counted by cell."""
    book = study(0.3, unconverged=2)
    for key in [key for key in book.contents.replicates if "mul" in key]:
        held = book.contents.measures.pop(f"{key}/attention_importance")
        values = {name: estimate["value"] for name, estimate in held["estimates"].items()}
        values["attention_importance_ceiling_zero"] = 0.19
        book.measure(key, "attention_importance", values, converged=held["estimates"][NAME]["converged"])
    book.contents.replicates["merge=mul,depth=14/confirm/7/1"]["state"] = "collapsed"
    assert claim(inputs(book))["change"] == (
        "Replicate 0 of mul at depth 8: noise ceiling 0.19, not converged; replicate 1 of mul at depth 8: noise ceiling "
        "0.19, not converged; replicate 0 of mul at depth 14: noise ceiling 0.19, not converged (1 more like it): more "
        "attention_importance.num_samples; 1 of 8 networks of mul at depth 14 collapsed: trainings that do not fail (other "
        "learning rates, warm-up, more epochs); more blocks alone do not help."
    )
