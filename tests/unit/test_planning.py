"""What ``plan`` says before a run: pairs needed, the floor of the sign-flip test, looks, and expected numbers of blocks."""

import json

import numpy as np
import pytest
from command_line import fmm_study

from analysis.claims.power_words import power_lines, undecidable, verdict_warning
from analysis.claims.rule import rule_of
from analysis.stats.power import expected_blocks, pairs_needed, smallest_detectable
from analysis.stats.sequential import repeated_interval
from analysis.stats.signflip import sign_flip_interval
from search_spaces import SpecError, load_spec
from search_spaces.load import parse_spec
from study.commands.start import refuse_undecidable
from study.errors import UserError

LOOKS = [10, 16, 24]
SEQUENTIAL = ["blocks=24", "sequential={looks: [10, 16, 24]}"]


NONE = "level_claims={}"
CLAIM = {
    "text": "t",
    "arm": {"merge": "mul"},
    "references": [{"merge": "add"}],
    "outcomes": [{"name": "test/accuracy", "margin": 0.01}],
}
TWO_PARTS = CLAIM | {"references": [{"merge": "add"}, {"merge": "authors_8"}]}
FAMILY = {key: value for key, value in CLAIM.items() if key != "arm"} | {
    "arms": [{"merge": "mul"}, {"merge": "authors_8"}]
}


def of_claims(blocks, *claims, given=()):
    named = {f"C{i}": claim for i, claim in enumerate(claims)}
    return load_spec("digits", [NONE, f"claims={json.dumps(named)}", f"blocks={blocks}", *given])


def four(blocks=10, given=()):
    return of_claims(blocks, *[CLAIM] * 4, given=given)


def test_eight_pairs_pass_at_a_quarter_of_alpha_only_with_the_most_extreme_pattern():
    assert verdict_warning(four(8)) == (
        "too few blocks for a sure verdict: with 4 claims 8 pairs give one only when every pair agrees, the most extreme "
        "pattern; blocks: 10 would do"
    )
    assert "9 pairs give one only when almost every pair agrees" in verdict_warning(four(9))
    assert verdict_warning(four(10)) == ""


def test_a_claim_that_no_data_could_decide_is_refused():
    assert undecidable(of_claims(8, *[CLAIM] * 4)) == ""
    assert undecidable(of_claims(7, *[CLAIM] * 4)).startswith("7 blocks cannot decide C0, C1, C2, C3: ")
    # two comparisons at eight pairs: refutation takes alpha / 8
    assert undecidable(of_claims(8, CLAIM, CLAIM, CLAIM, TWO_PARTS)) == (
        "8 blocks cannot decide C3: 8 pairs give no p below 0.0078, and to refute C3 takes 0.0063 (0.05 over 4 claims over 2 "
        "comparisons); blocks: 9 would do, and blocks: 1 runs without verdicts"
    )
    assert undecidable(of_claims(9, CLAIM, CLAIM, CLAIM, TWO_PARTS)) == ""
    # a family of two arms: support does
    assert "to support C3 takes 0.0063 (0.05 over 4 claims over 2 arms)" in undecidable(
        of_claims(8, *[CLAIM] * 3, FAMILY)
    )
    assert undecidable(of_claims(1, *[CLAIM] * 4)) == "" and undecidable(of_claims(2)) == ""
    with pytest.raises(UserError, match="8 blocks cannot decide C3"):
        refuse_undecidable(of_claims(8, CLAIM, CLAIM, CLAIM, TWO_PARTS))


def test_a_family_and_its_parts_stand_in_the_plan():
    lines = power_lines(of_claims(10, CLAIM, FAMILY, TWO_PARTS | {"presupposes": "C0"}))
    assert (
        "C1: a family of 2 arms (merge mul, merge authors_8): any of them supports it, at level 0.0083; all must fall to "
        "refute it, at level 0.017"
    ) in lines
    assert "C2: holds if it holds in all 2 comparisons; any one refutes it, at level 0.0083" in lines
    assert "C2: presupposes C0; if that is refuted, its sentence says so" in lines
    assert not any(line.startswith("C0: holds") for line in lines)


def test_plan_and_a_first_run_refuse_it(tmp_path):
    for command in ("plan", "run"):
        given = [command, "digits", "--set", "blocks=4", *(["--storage", str(tmp_path)] if command == "run" else [])]
        done = fmm_study(*given)
        assert done.returncode == 2 and done.stderr.startswith("fmm-study: 4 blocks cannot decide C"), command
    assert not list(tmp_path.iterdir())


def test_a_first_look_that_can_decide_nothing_is_told():
    assert verdict_warning(four(24, SEQUENTIAL)) == ""
    early = four(24, ["sequential={looks: [8, 16, 24]}"])
    assert verdict_warning(early) == (
        "the first look decides nothing: 8 pairs cannot reach the level spent by then, 0.0057"
    )


def test_pairs_needed_stand_in_the_plan():
    (line,) = [line for line in power_lines(four()) if line.startswith("pairs needed")]
    needed = [pairs_needed(1.0, spread, 0.05 / 4) for spread in (0.5, 1.0, 2.0)]
    assert [int(part.split(" at a spread")[0].rsplit(" ", 1)[-1]) for part in line.split(", ")] == needed
    assert needed[0] < needed[1] < needed[2]


@pytest.mark.parametrize(("n", "alpha"), [(8, 0.0125), (10, 0.05)])
def test_power_rests_on_the_intervals_in_use(n, alpha):
    draws = np.random.Generator(np.random.PCG64(n)).standard_normal((4000, n))
    lower = np.array([sign_flip_interval(z, alpha)[0] for z in draws])
    assert smallest_detectable(n, alpha, 1.0) == pytest.approx(np.quantile(-lower, 0.8), rel=1e-12)


def test_looks_and_expected_blocks_stand_in_the_plan():
    lines = power_lines(four(24, SEQUENTIAL))
    assert (
        "looks at 10, 16, 24 blocks, each only for cells that an undecided claim needs (trainings and time above: all of "
        "them); level of a claim 0.0125 (Bonferroni over 4), spent by then: 0.0067, 0.0095, 0.013 (Lan-DeMets)"
    ) in lines
    expected = [line for line in lines if "expected by simulation" in line]
    assert len(expected) == 3 and not any("looks at" in line for line in power_lines(four()))


def test_expected_blocks_are_those_of_the_rule():
    """Against the intervals in use, one study after another: the same rule, with every pattern of the first pairs."""
    looks, level = [6, 8, 11], 0.1
    generator = np.random.default_rng(9)
    blocks, verdicts = [], []
    for d in 1.0 + 1.0 * generator.standard_normal((150, 11)):
        for k, n in enumerate(looks, start=1):
            low, high = repeated_interval(d[:n], looks[:k], [m / 11 for m in looks[:k]], level)
            verdict = "refuted" if high < 1 else "supported" if low > 0 else "undecided"
            if verdict != "undecided" or n == 11:
                blocks.append(n)
                verdicts.append(verdict)
                break
    found = expected_blocks(looks, level, 1.0, 1.0)
    assert found.blocks == pytest.approx(np.mean(blocks), abs=0.5)
    assert found.supported == pytest.approx(np.mean([v == "supported" for v in verdicts]), abs=0.12)
    assert found.refuted == pytest.approx(np.mean([v == "refuted" for v in verdicts]), abs=0.05)


def test_a_small_spread_ends_at_the_first_look_and_a_large_one_at_the_last():
    assert expected_blocks(LOOKS, 0.0125, 0.0, 0.1).blocks == 10 == expected_blocks(LOOKS, 0.0125, 1.0, 0.1).blocks
    wide = expected_blocks(LOOKS, 0.0125, 0.0, 20.0)
    assert wide.blocks > 23.5 and wide.supported < 0.02
    assert expected_blocks(LOOKS, 0.0125, 0.0, 1.0) == expected_blocks(LOOKS, 0.0125, 0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sequential": "{looks: [16, 10]}"}, "sequential.looks: needs two or more rising numbers of blocks"),
        ({"sequential": "{looks: [1, 24]}"}, "the first at least 2, got [1, 24]"),
        ({"sequential": "{looks: [24]}"}, "sequential.looks"),
        ({"sequential": "{looks: [10, 24], pending: 1}"}, "unknown key 'sequential.pending'"),
        ({"sequential": "{looks: [10, 16]}"}, "blocks=24 with sequential.looks up to 16: blocks is the last look, 16"),
        ({"sequential": "{looks: [10, 24]}", "claims": "{}", "level_claims": "{}"}, "sequential without claims"),
        ({"sequential": "{looks: [10, 24]}", "control": "null"}, "sequential without control"),
    ],
)
def test_impossible_looks_are_one_clear_line(changes, told):
    with pytest.raises(SpecError) as caught:
        load_spec("digits", ["blocks=24", *(f"{key}={value}" for key, value in changes.items())])
    message = str(caught.value)
    assert told in message and "\n" not in message


def test_looks_go_with_no_joint_search():
    text = """
name: j
factors: {merge: [add, mul]}
nuisance: {lr: {low: 0.01, high: 1.0, log: true, default: 0.1}}
blocks: 4
sequential: {looks: [2, 4]}
budget: {search_trials: 4, startup_trials: 2}
joint: {objectives: [{name: val/loss, direction: minimize}, {name: flops, direction: minimize}]}
"""
    with pytest.raises(SpecError, match="sequential with joint"):
        parse_spec(text, "here")


def test_the_rule_of_a_study_is_holms_at_once_or_bonferronis_by_looks():
    once, looks = four(), four(24, SEQUENTIAL)
    parts = {"a": 0.001, "b": 0.02, "c": None, "d": 0.5}
    assert rule_of(once).levels(parts)["b"] == pytest.approx(0.05 / 3)
    assert set(rule_of(looks, 2).levels(parts).values()) == {0.05 / 4}
    assert rule_of(looks, 2).looks == (10, 16) and rule_of(looks, 2).last == 24
    assert rule_of(looks, 3).level_by_now(0.0125) == pytest.approx(0.0125) == rule_of(once).level_by_now(0.0125)
