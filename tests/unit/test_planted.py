"""The whole pipeline on studies with planted effects: the sign is recovered, and what cannot be compared is refused."""

from pathlib import Path

import pyarrow.compute as pc
import pytest
from book import mul
from synthetic import MERGES, accuracy_claim, claims_of, inputs_of, planted_study, smoothness_claim

from analysis.tables.build import build_table, table_columns
from analysis.words.export import render

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("effect", "spread", "verdict"),
    [(0.03, 0.004, "supported"), (0.0, 0.004, "refuted"), (-0.03, 0.004, "refuted"), (0.0, 0.08, "undecided")],
)
def test_one_effect_and_none(effect, spread, verdict):
    inputs = inputs_of(planted_study({("mul", 8): effect}, spread=spread))
    row = mul(inputs.effects)
    assert row["mean_difference"] == pytest.approx(effect, abs=1.5 * spread)
    assert (row["ci_low"] > 0, row["ci_high"] < 0) == (effect > 0.01, effect < -0.01)
    (judgement,) = inputs.judgements
    assert judgement.verdict == verdict


def test_an_interaction_is_seen_by_depth_and_hidden_in_the_pool():
    two = {"factors": [{"merge": list(MERGES), "depth": [8, 14]}]}
    book = planted_study({("mul", 8): 0.03, ("mul", 14): -0.03}, depths=(8, 14))
    inputs = inputs_of(book, **two)
    by = {stratum: mul(inputs.effects, stratum) for stratum in ("depth=8", "depth=14", "all")}
    assert by["depth=8"]["ci_low"] > 0.02 and by["depth=14"]["ci_high"] < -0.02
    assert by["all"]["ci_low"] < 0 < by["all"]["ci_high"]
    (judgement,) = inputs.judgements
    assert judgement.verdict == "refuted"
    assert "the effect depends on depth (14 against 8: -6" in inputs.findings[0].sentence


@pytest.mark.parametrize("noisy", ["add", "mul"])
def test_unequal_variance_keeps_the_sign_and_widens_the_interval(noisy):
    effect = {("mul", 8): 0.05}
    wide, narrow = (mul(inputs_of(planted_study(effect, spreads=spreads)).effects) for spreads in ({noisy: 0.03}, {}))
    assert wide["ci_low"] > 0 and narrow["ci_low"] > 0
    assert wide["ci_high"] - wide["ci_low"] > 3 * (narrow["ci_high"] - narrow["ci_low"])


def test_missing_cells_wait_and_decide_nothing():
    row = claims_of(planted_study({("mul", 8): 0.03}, missing=[("mul", 8, 2), ("add", 8, 5)]))["C4"]
    assert (row["verdict"], row["reason"], row["n_pairs"]) == ("undecided", "2 of 10 pairs have not run yet.", 8)
    assert row["effect"] == pytest.approx(0.03, abs=0.005)
    gone = claims_of(planted_study({}, missing=[("mul", 8, block) for block in range(10)]))["C4"]
    assert gone["verdict"] == "undecided" and gone["effect"] is None


def test_diverged_arms_count_as_failures_and_refute_the_claim():
    book = planted_study({("mul", 8): 0.03}, diverged=[("mul", 8, block) for block in range(7)], smooth={"mul": -0.5})
    rows = claims_of(book, claims={"C3": smoothness_claim(), "C4": accuracy_claim()})
    assert (rows["C4"]["verdict"], rows["C3"]["verdict"], rows["C3"]["why"]) == (
        "refuted",
        "undecided",
        "not estimable",
    )
    assert (rows["C4"]["arm_failures"], rows["C4"]["mcnemar_p"]) == (7, 2 / 2**7)
    assert rows["C4"]["effect"] < -0.4 and rows["C4"]["effect_survivors"] > 0.02
    assert "7 of 10 pairs are ineligible" in rows["C3"]["reason"]


def test_unequal_budgets_refuse_the_comparison():
    book = planted_study({("mul", 8): 0.03})
    for block in range(10):
        book.replicate("mul", 8, block, phase="search", metrics={})
    row = claims_of(book)["C4"]
    assert (row["verdict"], row["why"], row["reason"]) == (
        "undecided",
        "refused",
        "Refused: budgets are unequal in 10 pairs.",
    )


@pytest.mark.parametrize("name", ["claims", "effects"])
def test_golden_tables_of_a_planted_study(name):
    """Frozen texts of a study with an effect in each claim and a missing pair of the control."""
    book = planted_study({("mul", 8): 0.03}, missing=[("add_alias", 8, 9)], smooth={"mul": -0.5})
    table = build_table(inputs_of(book, claims={"C3": smoothness_claim(), "C4": accuracy_claim()}), name)
    measured = table.filter(pc.greater(table["n_pairs"], 0))
    assert render(measured, "md", table_columns(name)).decode() == (GOLDEN / f"planted_{name}.md").read_text()
