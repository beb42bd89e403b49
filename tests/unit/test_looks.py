"""A sequential study from its ledger: which look decided each claim, who goes on, and what its tables say meanwhile."""

import pytest
from book import JACOBIAN, find
from synthetic import CONTROL, MERGES, accuracy_claim, claims_of, inputs_of, planted_study, smoothness_claim

from analysis.claims.looks import course_of
from analysis.stats.sequential import repeated_interval
from analysis.tables.build import build_table

ARMS = (*MERGES, "sig_bn", "tanh_gate")
CLAIMS = {"C4": accuracy_claim(), "C5": accuracy_claim("sig_bn"), "C3": smoothness_claim()}
PLAN = {
    "factors": [{"merge": list(ARMS), "depth": [8]}],
    "sequential": {"looks": [8, 12, 16]},
    "blocks": 16,
    "claims": CLAIMS,
    "contrasts": [{"arm": {"merge": "tanh_gate"}, "reference": {"merge": "add"}}],
}
CELL = "merge={},depth=8"
# C4 is clear at once; sig_bn's effect is near the margin and wide
EFFECTS = {("mul", 8): 0.04, ("sig_bn", 8): 0.01}
WIDE = {"sig_bn": 0.06}


def made(blocks, **changes):
    return planted_study(EFFECTS, blocks=blocks, merges=ARMS, spreads=WIDE, smooth={"mul": -0.6}, **changes)


def course(book, **changes):
    inputs = inputs_of(book, **(PLAN | changes))
    return course_of(inputs.spec, inputs.trials, inputs.assay_trials, inputs.chance)


def test_cells_of_undecided_claims_go_on_and_the_others_stop():
    first = course(made(8))
    assert {j.name: (j.verdict, j.look) for j in first.judgements} == {
        "C4": ("supported", 1), "C5": ("undecided", 2), "C3": ("supported", 1),
    }  # fmt: skip
    assert first.further == {CELL.format(merge): 12 for merge in ("add", "add_alias", "sig_bn")}
    # the arm of C5, its reference and the control have 12 blocks, the others 8: nothing is missing
    there = {"mul": 8, "tanh_gate": 8} | dict.fromkeys(("add", "add_alias", "sig_bn"), 12)
    second = course(made(there))
    assert {j.name: (j.verdict, j.look) for j in second.judgements}["C5"] == ("undecided", 3)
    assert set(second.further.values()) == {16} and len(second.further) == 3
    last = claims_of(made(there | {"add": 16, "add_alias": 16, "sig_bn": 16}), **PLAN)
    assert (last["C5"]["look"], last["C5"]["n_pairs"]) == (3, 16)
    assert (last["C4"]["look"], last["C4"]["n_pairs"], last["C4"]["verdict"]) == (1, 8, "supported")
    assert last["C4"]["qualifier"] == "look 1 of 3, 8 blocks"


def test_a_look_waits_until_all_its_blocks_are_complete():
    for missing in [("mul", 8, 7), ("add", 8, 7), ("add_alias", 8, 7)]:
        waiting = course(made(8, missing=[missing]))
        assert waiting.further == {} and all(j.look == 1 for j in waiting.judgements)
        assert any(j.waiting for j in waiting.judgements)
    control = claims_of(made(8, missing=[("add_alias", 8, 7)]), **PLAN)["C4"]
    assert (control["verdict"], control["reason"]) == (
        "undecided", "The A/A control waits for 1 of its pairs.",
    )  # fmt: skip


def test_a_decided_claim_stays_as_it_was_whatever_comes_after():
    before = claims_of(made(8), **PLAN)["C4"]
    book = made({"mul": 8} | dict.fromkeys(("add", "add_alias", "sig_bn"), 12))
    for block in range(8, 12):  # blocks that no look asked for, and that speak against it
        book.confirm("mul", 8, block, 0.2)
    after = claims_of(book, **PLAN)["C4"]
    assert after == before


def test_intervals_are_repeated_ones_at_bonferroni_levels():
    book = made(dict.fromkeys(ARMS, 12))
    row = claims_of(book, **PLAN)["C5"]
    assert row["level"] == pytest.approx(0.05 / 3)
    inputs = inputs_of(book, **PLAN)
    (_, _, d) = zip(
        *sorted(
            (r["block"], r["arm"], r["difference"])
            for r in inputs.differences.to_pylist()
            if (r["arm"], r["outcome"], r["stratum"]) == ("merge=sig_bn", "test/accuracy", "all")
        ),
        strict=True,
    )
    # the third look has begun, and has no more pairs yet than the second
    assert (row["look"], row["n_pairs"], row["reason"]) == (3, 12, "4 of 16 pairs have not run yet.")
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(
        repeated_interval(d, [8, 12, 12], [0.5, 0.75, 1.0], 0.05 / 3)
    )


def test_unequal_numbers_of_blocks_are_neither_waiting_nor_left_out():
    there = {"mul": 8, "tanh_gate": 8} | dict.fromkeys(("add", "add_alias", "sig_bn"), 12)
    effects = inputs_of(made(there), **PLAN).effects
    for arm, pairs in (("mul", 8), ("tanh_gate", 8), ("sig_bn", 12), ("add_alias", 12)):
        row = find(effects, arm=f"merge={arm}", outcome="test/accuracy", stratum="all")
        assert (row["n_pairs"], row["n_waiting"], row["n_excluded"]) == (pairs, 0, 0), arm
        assert "pairs not run" not in row["note"] and row["p_holm"] is None
        assert row["label"] == "the interval counts one look"
    waiting = find(inputs_of(made(there, missing=[("sig_bn", 8, 11)]), **PLAN).effects, arm="merge=sig_bn",
                   outcome="test/accuracy", stratum="all")  # fmt: skip
    assert waiting["n_waiting"] == 1


def test_assay_cells_go_on_too():
    merges = ("add", "add_alias", "sig_bn", "none")
    changes = PLAN | {
        "factors": [{"merge": list(merges), "depth": [8]}], "claims": {"C5": accuracy_claim("sig_bn")}, "contrasts": [],
        "assay": {"arm": {"merge": "add"}, "reference": {"merge": "none"}},
    }  # fmt: skip
    book = planted_study({("none", 8): -0.3, ("sig_bn", 8): 0.03}, blocks=8, merges=merges, spreads=WIDE)
    assert set(course(book, **changes).further) == {CELL.format(merge) for merge in merges}


def test_a_claim_on_a_level_is_looked_at_too():
    claim = {"text": "low", "arm": {"merge": "mul"}, "outcome": JACOBIAN, "below": 0.5, "above": 0.7}
    plan = PLAN | {"claims": {}, "level_claims": {"C1": claim}, "control": CONTROL}
    rows = claims_of(made(8), **plan)
    assert (rows["C1"]["verdict"], rows["C1"]["look"], rows["C1"]["level"]) == ("supported", 1, 0.05)
    wide = course(planted_study({}, blocks=8, merges=ARMS, smooth={"mul": -0.5}), **plan)
    assert wide.further == {CELL.format(merge): 12 for merge in ("mul", "add", "add_alias")}


def test_a_claim_that_no_block_can_decide_asks_for_none():
    def unequal(merge):
        book = made(8)
        book.replicate(merge, 8, 3, phase="search", metrics={})
        return book

    lost = course(unequal("sig_bn"))
    (c5,) = [j for j in lost.judgements if j.name == "C5"]
    assert (c5.verdict, c5.look, c5.lost, lost.further) == ("undecided", 1, True, {})
    # against its other reference it can still be refuted
    two = accuracy_claim("sig_bn", references=[{"merge": "add"}, {"merge": "mul"}])
    half = course(unequal("mul"), claims={"C5": two})
    assert [j.lost for j in half.judgements] == [False] and half.further
    # a failure is an outcome like any other
    (failed,) = [j for j in course(made(8, diverged=[("sig_bn", 8, 3)])).judgements if j.name == "C5"]
    assert (failed.verdict, failed.lost, failed.look) == ("undecided", False, 2)
    # a smoothness claim leaves the pair out and goes on
    rough = PLAN | {"claims": {"C3": smoothness_claim("sig_bn")}}
    wide = course(made(8, diverged=[("tanh_gate", 8, 3)]), **rough)
    assert {j.lost for j in wide.judgements} == {False}


def test_a_control_whose_networks_all_fail_is_no_longer_waited_for():
    failed = course(made(8, diverged=[("add_alias", 8, block) for block in range(8)]))
    assert {j.look for j in failed.judgements} == {2} and set(failed.further.values()) == {12}


def test_the_last_look_says_that_it_was_the_last():
    row = claims_of(made(16), **PLAN)["C5"]
    assert row["verdict"] == "undecided" and row["look"] == 3
    assert row["change"] == "A new study with more blocks: this one has spent its last look, 16 blocks."
    table = build_table(inputs_of(made(16), **PLAN), "registered").to_pylist()
    assert {r["family"] for r in table} == {"Bonferroni over 3 claims at 0.05, spent over looks at 8, 12, 16 blocks"}
