"""Dose-response and smoothness by intervention: planted slopes come back, nulls do not, and scipy agrees."""

import numpy as np
import pytest
from book import JACOBIAN, Book, find, synthetic_spec
from scipy import stats

from analysis.inputs import Inputs
from analysis.tables.build import build_table
from analysis.tables.dose_response import page_p
from search_spaces import Dose, SpecError, parse_spec

DOSES = {"add": 0.0, "mix_25": 0.25, "mix_50": 0.5, "mix_100": 1.0}
MULTIPLICATION = {"steps": [{"dose": dose, "levels": {"merge": merge}} for merge, dose in DOSES.items()]}
BLOCKS = 8


def study(slope=0.0, noise=0.01, depths=(8,), fail=(), seed=0, **changes):
    book, rng = Book(), np.random.default_rng(seed)
    for block in range(BLOCKS):
        for depth in depths:
            for merge, dose in DOSES.items():
                state = "collapsed" if (merge, depth, block) in fail else "completed"
                accuracy = 0.7 + block / 500 + slope * dose + noise * rng.standard_normal()
                book.confirm(merge, depth, block, accuracy, state=state, estimates={JACOBIAN: 1 - 0.3 * dose})
    factors = [{"merge": list(DOSES), "depth": list(depths)}]
    # in the order of the spec the doses fall: a ladder is sorted by dose
    doses = {"multiplication": {"steps": MULTIPLICATION["steps"][::-1]}}
    spec = synthetic_spec(**({"factors": factors, "control": None, "doses": doses} | changes))
    return Inputs(spec=spec, contents=book.contents)


def accuracies(inputs):
    rows = [r for r in inputs.trials.to_pylist() if r["depth"] == 8]
    return np.array([[r["test/accuracy"] for r in rows if r["merge"] == merge] for merge in DOSES]).T


def test_a_planted_slope_comes_back_as_scipy_has_it():
    inputs = study(slope=0.05)
    row = find(build_table(inputs, "dose_trends"), outcome="test/accuracy")
    table = accuracies(inputs)
    slopes = [stats.linregress(list(DOSES.values()), values).slope for values in table]
    assert row["estimate"] == pytest.approx(np.mean(slopes), abs=1e-12) and row["estimate"] > 0
    assert row["sd"] == pytest.approx(np.std(slopes, ddof=1), abs=1e-12)
    exact = stats.permutation_test((slopes,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert row["p_sign_flip"] == pytest.approx(exact.pvalue) and row["p_sign_flip"] < 0.02
    assert row["ci_low"] <= row["estimate"] <= row["ci_high"] and row["ci_low"] > 0
    assert row["p_page"] == pytest.approx(2 * stats.page_trend_test(table).pvalue) and row["p_page"] < 0.02
    assert (row["n_doses"], row["n_pairs"], row["n_excluded"], row["label"]) == (4, 8, 0, "exploratory")
    smooth = find(build_table(inputs, "dose_trends"), outcome=JACOBIAN)
    assert (smooth["estimate"], smooth["p_sign_flip"]) == (pytest.approx(-0.3, abs=1e-12), 2 / 2**BLOCKS)


def test_the_sign_of_a_slope_turns_with_the_effect_and_a_null_stays_quiet():
    falling = find(build_table(study(slope=-0.05), "dose_trends"), outcome="test/accuracy")
    assert falling["estimate"] < 0 and falling["p_sign_flip"] < 0.02 and falling["p_page"] < 0.02
    flat = find(build_table(study(noise=0.0), "dose_trends"), outcome="test/accuracy")
    assert (flat["estimate"], flat["p_sign_flip"], flat["ci_low"], flat["ci_high"]) == (0, 1, 0, 0)
    assert flat["p_page"] == 1
    rng = np.random.default_rng(1)
    ps = [page_p(rng.standard_normal((8, 4))) for _ in range(400)]
    assert np.mean(np.array(ps) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert page_p(np.zeros((1, 4))) is None and page_p(np.zeros((8, 2))) is None


def test_means_by_dose_count_failures():
    inputs = study(slope=0.05, depths=(8, 14), fail=[("mix_100", 14, 0), ("mix_100", 14, 1)])
    rows = [r for r in build_table(inputs, "dose_response").to_pylist() if r["outcome"] == "test/accuracy"]
    assert [r["stratum"] for r in rows] == ["all"] * 4 + ["depth=8"] * 4 + ["depth=14"] * 4
    assert [r["dose"] for r in rows[:4]] == list(DOSES.values())
    assert [(r["n_pairs"], r["n_trained"], r["n_failures"]) for r in rows[:4]] == [(8, 16, 0)] * 3 + [(8, 16, 2)]
    assert [(r["n_pairs"], r["n_failures"]) for r in rows[4:8]] == [(8, 0)] * 4
    assert [r["mean"] for r in rows[4:8]] == pytest.approx(accuracies(inputs).mean(axis=0), abs=1e-12)
    assert rows[7]["sd"] == pytest.approx(accuracies(inputs)[:, 3].std(ddof=1), abs=1e-12)
    trend = find(build_table(inputs, "dose_trends"), outcome="test/accuracy", stratum="all")
    assert (trend["n_pairs"], trend["n_excluded"], trend["n_failures"]) == (8, 0, 2)


def test_a_dose_may_be_spread_over_two_factors_with_equal_doses_averaged():
    steps = [
        {"dose": 0, "levels": {"merge": "add"}},
        {"dose": 1 / 3, "levels": {"merge": "mul", "merge_where": "first"}},
        {"dose": 1 / 3, "levels": {"merge": "mul", "merge_where": "last"}},
        {"dose": 1, "levels": {"merge": "mul", "merge_where": "all"}},
    ]
    factors = [{"merge": ["add", "mul"], "merge_where": ["all"]}, {"merge": ["mul"], "merge_where": ["first", "last"]}]
    book = Book()
    for block in range(BLOCKS):
        for merge, where, share in (
            ("add", "all", 0),
            ("mul", "first", 1 / 3),
            ("mul", "last", 1 / 3),
            ("mul", "all", 1),
        ):
            key = book.confirm(merge, 8, block, 0.9 - 0.03 * share, trial_key=f"{merge}{where}{block}",
                               config={"merge_where": where})  # fmt: skip
            book.contents.replicates[key]["cell"] = f"{merge} {where}"
    spec = synthetic_spec(factors=factors, fixed={"depth": 8}, control=None, doses={"blocks": {"steps": steps}})
    row = find(
        build_table(Inputs(spec=spec, contents=book.contents), "dose_trends"), name="blocks", outcome="test/accuracy"
    )
    assert (row["estimate"], row["n_doses"], row["n_pairs"]) == (pytest.approx(-0.03, abs=1e-12), 3, 8)
    assert row["p_sign_flip"] == 2 / 2**BLOCKS and row["p_page"] < 0.01


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([("add", 0), ("mul", 1)], "at least 3"),
        ([("add", 0), ("mul", 1), ("add_alias", 1)], "at least three different doses"),
        ([("add", 0), ("mul", 1), ("mull", 2)], "no cell of this study has {'merge': 'mull'}"),
        ([("add", 0), ("mul", 1), ("mul", 2)], "twice"),
    ],
)
def test_a_dose_that_cannot_be_is_refused(steps, told):
    doses = {"d": {"steps": [{"dose": dose, "levels": {"merge": merge}} for merge, dose in steps]}}
    with pytest.raises(ValueError, match=told):
        synthetic_spec(doses=doses)


def test_a_dose_is_read_from_yaml_and_names_an_unknown_factor():
    text = (
        "{name: x, factors: {merge: [add, mul]}, blocks: 1, budget: {search_trials: 0, startup_trials: 0}, "
        "doses: {d: {steps: [{dose: 0, levels: {mrge: add}}, {dose: 1, levels: {merge: add}}, "
        "{dose: 2, levels: {merge: mul}}]}}}"
    )
    with pytest.raises(SpecError, match=r"doses\.d names 'mrge', which is no factor of this study"):
        parse_spec(text, "test")
    assert Dose.model_validate(MULTIPLICATION).factors() == ["merge"]


def penalised(mul_near=-0.4, mul_accuracy=0.02, penalty_accuracy=0.0):
    """``add`` at three penalties, smoother by .2 and .4; ``mul`` without one, smoother by ``mul_near``."""
    book = Book()
    for block in range(BLOCKS):
        for merge, weight, near, accuracy in (
            ("add", 0.0, 0.0, 0.0), ("add", 0.01, -0.2, penalty_accuracy), ("add", 0.1, -0.4, 2 * penalty_accuracy),
            ("mul", 0.0, mul_near, mul_accuracy),
        ):  # fmt: skip
            key = book.confirm(merge, 8, block, 0.9 + block / 1000 + accuracy, trial_key=f"{merge}{weight}{block}",
                               config={"jacobian_penalty": weight}, estimates={JACOBIAN: 1 + block / 10 + near})  # fmt: skip
            book.contents.replicates[key]["cell"] = f"{merge} {weight}"
    factors = [
        {"merge": ["add", "mul"], "jacobian_penalty": [0.0]},
        {"merge": ["add"], "jacobian_penalty": [0.01, 0.1]},
    ]
    return Inputs(
        spec=synthetic_spec(factors=factors, fixed={"depth": 8}, control=None), contents=book.contents, chance={}
    )


def test_what_multiplication_does_beside_a_penalty_of_like_smoothness():
    table = build_table(penalised(), "intervention")
    rows = [
        (r["kind"], r["penalty"], r["outcome"], round(r["mean_difference"], 12), r["alike"]) for r in table.to_pylist()
    ]
    assert rows == [
        ("contrast", 0.0, JACOBIAN, -0.4, None), ("contrast", 0.0, "test/accuracy", 0.02, None),
        ("penalty", 0.01, JACOBIAN, -0.2, None), ("penalty", 0.01, "test/accuracy", 0.0, None),
        ("contrast against penalty", 0.01, JACOBIAN, -0.2, False),
        ("contrast against penalty", 0.01, "test/accuracy", 0.02, False),
        ("penalty", 0.1, JACOBIAN, -0.4, None), ("penalty", 0.1, "test/accuracy", 0.0, None),
        ("contrast against penalty", 0.1, JACOBIAN, 0.0, True),
        ("contrast against penalty", 0.1, "test/accuracy", 0.02, True),
    ]  # fmt: skip
    row = find(table, kind="penalty", penalty=0.1, outcome=JACOBIAN)
    assert (row["arm"], row["n_pairs"], row["p_sign_flip"]) == ("merge=add jacobian_penalty=0.1", 8, 2 / 2**BLOCKS)
    assert build_table(study(), "intervention").num_rows == 0
