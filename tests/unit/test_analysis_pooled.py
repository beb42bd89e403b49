"""Effects over datasets: t over dataset means from five on, never against a dataset, and a mixed model beside it."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.formula.api as smf
from book import Book, find, synthetic_spec
from scipy import optimize, stats

from analysis.inputs import Inputs
from analysis.stats.pooling import mixed_model, pool
from analysis.tables.build import build_table
from search_spaces.registered import registered

BLOCKS = 10
SPREAD = np.array([0.004, -0.004, 0.002, -0.002, 0.001, -0.001, 0.003, -0.003, 0.0, 0.0])
NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "svhn", "cifar100")
LEVEL = {"arm": {"merge": "mul"}, "outcome": "ratio", "text": "weak", "below": 0.5, "above": 0.7}


def study(effects, *, fail=(), ratios=None, missing=(), **changes):
    """``mul`` minus ``add`` on each dataset, ten blocks each, an A/A control of no difference."""
    names, book = NAMES[: len(effects)], Book()
    for i, (dataset, effect) in enumerate(zip(names, effects, strict=True)):
        for block in range(BLOCKS):
            for merge, by in (("add", 0.0), ("add_alias", 0.0), ("mul", effect + SPREAD[block])):
                if (dataset, merge, block) in missing:
                    continue
                state = "collapsed" if (dataset, merge, block) in fail else "completed"
                estimates = {"ratio": ratios[i] + SPREAD[block]} if ratios else ()
                key = book.confirm(
                    merge, 8, block, 0.9 - i / 100 + by, state=state, estimates=estimates,
                    trial_key=f"{dataset}{merge}{block}", config={"dataset": dataset},
                )  # fmt: skip
                book.contents.replicates[key]["cell"] = f"merge={merge},dataset={dataset}"
    claims = {"C4": synthetic_spec().model_dump()["claims"]["C4"]}
    factors = [{"merge": ["add", "add_alias", "mul"], "dataset": list(names)}]
    given = {"factors": factors, "fixed": {"depth": 8}, "blocks": BLOCKS, "claims": claims}
    given |= {"level_claims": {"C1": LEVEL}} if ratios else {}
    return Inputs(spec=synthetic_spec(**(given | changes)), contents=book.contents, chance=dict.fromkeys(names, 0.1))


def claims_of(inputs):
    return {(row["claim"], row["dataset"]): row for row in build_table(inputs, "claims").to_pylist()}


def test_five_datasets_are_pooled_by_t_over_their_means():
    effects = [0.03, 0.035, 0.04, 0.03, 0.025]
    inputs = study(effects)
    row = claims_of(inputs)["C4", "all datasets"]
    low, high = stats.t.interval(0.95, 4, np.mean(effects), stats.sem(effects))
    assert row["verdict"] == "supported"
    assert (row["effect"], row["ci_low"], row["ci_high"]) == pytest.approx((0.032, low, high), abs=1e-12)
    assert (row["n_datasets"], row["n_pairs"], row["level"], row["n_parts"]) == (5, 50, 0.05, 1)
    assert row["sentence"].startswith("Yes: test accuracy is 3.2 points higher with merge mul than with add")
    assert row["estimand"].startswith(
        "Test accuracy differs by 3.20 pp [2.49, 3.91] for merge mul minus add (margin 2 pp, smallest detectable effect 0.96 "
        "pp, 50 pairs on 5 datasets, t over their means)"
    )
    assert row["reason"] == "The interval lies above zero and reaches the margin, and on no dataset it lies below zero."
    assert [finding.dataset for finding in inputs.findings] == [*NAMES[:5], "all datasets"]
    pooled = find(build_table(inputs, "pooled"), arm="merge=mul", outcome="test/accuracy")
    expected = stats.ttest_1samp(effects, 0)
    assert (pooled["p_t"], pooled["t_low"], pooled["t_high"]) == pytest.approx((expected.pvalue, low, high), abs=1e-12)
    assert (pooled["n_datasets"], pooled["n_above_zero"], pooled["label"]) == (5, 5, "primary")
    assert pooled["mixed_converged"] and pooled["mixed_low"] < 0.032 < pooled["mixed_high"]


def test_fewer_than_five_datasets_have_no_pooled_verdict_and_their_pooled_row_is_exploratory():
    inputs = study([0.03, 0.035, 0.04, 0.03])
    assert set(claims_of(inputs)) == {("C4", name) for name in NAMES[:4]}
    pooled = find(build_table(inputs, "pooled"), arm="merge=mul", outcome="test/accuracy")
    assert (pooled["label"], pooled["n_datasets"]) == ("exploratory; fewer than 5 datasets", 4)
    assert build_table(study([0.03]), "pooled").num_rows == 0


def test_support_needs_that_no_dataset_lies_below_zero():
    row = claims_of(study([0.06, 0.06, 0.06, 0.06, 0.06, -0.005]))["C4", "all datasets"]
    assert row["ci_low"] > 0 and row["verdict"] == "undecided"
    assert row["reason"] == "On cifar100 the whole interval lies below zero."
    assert row["change"] == "Pairs without what stands in the way; more datasets alone do not."
    # an interval that holds zero is not against
    assert claims_of(study([0.06, 0.06, 0.06, 0.06, 0.06, -0.001]))["C4", "all datasets"]["verdict"] == "supported"


def test_a_pooled_claim_is_refuted_or_undecided_by_the_same_rule():
    refuted = claims_of(study([0.001, -0.002, 0.002, 0.0, -0.005]))["C4", "all datasets"]
    assert refuted["verdict"] == "refuted"
    wide = claims_of(study([0.08, -0.001, 0.05, 0.0, 0.001]))["C4", "all datasets"]
    assert (wide["verdict"], wide["change"]) == ("undecided", "More datasets, or less spread between them.")


def test_what_bars_a_verdict_on_one_dataset_bars_the_pooled_one():
    failing = claims_of(study([0.03] * 5, fail=[("cifar10", "mul", 0)]))["C4", "all datasets"]
    assert (failing["arm_failures"], failing["arm_trainings"], failing["n_excluded"]) == (1, 50, 0)
    waiting = claims_of(study([0.03] * 5, missing=[("svhn", "mul", 9)]))["C4", "all datasets"]
    assert (waiting["reason"], waiting["n_waiting"]) == ("On svhn: 1 of 10 pairs have not run yet.", 1)
    none = claims_of(study([0.03] * 5, missing=[("svhn", "mul", b) for b in range(10)]))["C4", "all datasets"]
    assert (none["verdict"], none["effect"]) == ("undecided", None)
    without = claims_of(study([0.03] * 5, control=None))["C4", "all datasets"]
    assert without["reason"] == "This study has no A/A control, which every verdict needs."


def test_claims_on_levels_are_pooled_too_in_one_family():
    ratios = [0.2, 0.25, 0.3, 0.2, 0.25]
    rows = claims_of(study([0.03] * 5, ratios=ratios))
    row = rows["C1", "all datasets"]
    low, high = stats.t.interval(1 - row["level"], 4, np.mean(ratios), stats.sem(ratios))
    assert (row["verdict"], row["n_datasets"]) == ("supported", 5)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high), abs=1e-12)
    assert {row["level"], rows["C4", "all datasets"]["level"]} == {0.025, 0.05}
    assert "refuted above 0.7; 5 datasets)" in row["estimand"]
    # far enough below on the others that the mean is below, were it not for one dataset
    against = claims_of(study([0.03] * 6, ratios=[-0.2, -0.2, -0.2, -0.2, -0.2, 0.75]))["C1", "all datasets"]
    assert against["effect"] < 0.5 and against["verdict"] == "undecided"
    assert (against["reason"], against["n_pairs"]) == ("On cifar100 the whole interval lies above 0.7.", 60)
    # one that lies between both numbers is not against
    between = claims_of(study([0.03] * 6, ratios=[0.2, 0.2, 0.2, 0.2, 0.2, 0.6]))["C1", "all datasets"]
    assert between["verdict"] == "supported"


def test_a_dataset_without_one_of_the_references_leaves_the_claim_undecided():
    claims = study([0.03] * 2).spec.model_dump()["claims"]
    claims["C4"]["references"].append({"merge": "sig_bn"})
    merges = ["add", "add_alias", "mul"]
    factors = [
        {"merge": [*merges, "sig_bn"], "dataset": ["digits"]},
        {"merge": merges, "dataset": ["mnist"]},
    ]
    row = claims_of(study([0.03] * 2, claims=claims, factors=factors))["C4", "mnist"]
    assert (row["verdict"], row["n_parts"]) == ("undecided", 1)
    assert row["reason"] == "1 of the claim's comparisons is not in this study on mnist."


def test_a_claim_changed_after_results_has_no_pooled_verdict_either():
    inputs = study([0.03] * 5)
    claims = inputs.spec.model_dump()["claims"]
    claims["C4"]["outcomes"][0]["margin"] = 0.01
    held = {"registered": registered(inputs.spec), "later": [], "since": "", "digest": "", "confirm_began": ""}
    changed = study([0.03] * 5, claims=claims)
    row = claims_of(replace(changed, registration=held))["C4", "all datasets"]
    assert row["verdict"] == "no verdict" and row["qualifier"].startswith("post hoc, claims changed after")


def test_the_mixed_model_is_that_of_statsmodels_formula():
    rng = np.random.default_rng(0)
    dataset = np.repeat(np.arange(6), 10)
    d = rng.normal(0, 0.02, 6)[dataset] + rng.normal(0.01, 0.01, 60)
    found = mixed_model(d, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = smf.mixedlm("d ~ 1", {"d": 100 * d, "dataset": dataset}, groups="dataset").fit()
    assert found.converged
    assert found.estimate == pytest.approx(float(fit.fe_params.iloc[0]) / 100, rel=1e-4)
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * float(fit.bse_fe.iloc[0]) / 100, rel=1e-3)
    # a balanced design: the estimate is the mean of dataset means
    assert found.estimate == pytest.approx(d.mean(), rel=1e-9)


def test_a_mixed_model_that_cannot_be_fitted_says_so(monkeypatch):
    assert mixed_model([0.1] * 6, [0, 0, 1, 1, 2, 2]).note == "no spread within datasets: no mixed model"
    assert mixed_model([0.1, 0.1, 0.3, 0.3], [0, 0, 1, 1]).note == "no spread within datasets: no mixed model"
    assert mixed_model([0.1, 0.2], ["a", "a"]).note == "one dataset: no mixed model"

    class Singular:
        def __init__(self, *_, **__):
            raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr("statsmodels.regression.mixed_linear_model.MixedLM", Singular)
    assert mixed_model([0.1, 0.2, 0.3, 0.5], [0, 0, 1, 1]).note == "mixed model failed: Singular matrix"


def test_the_t_test_over_means_holds_its_level_and_its_smallest_effect():
    rng = np.random.default_rng(3)
    means = rng.normal(0, 1, (4000, 5))
    rejected = np.mean([pool(row).p <= 0.05 for row in means])
    assert abs(rejected - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 4000)
    assert pool([0.3]).p is None and pool([0.2] * 5).p == 0 and pool([0.0] * 5).p == 1
    for count, level in ((5, 0.0125), (8, 0.05), (24, 0.01)):
        d = np.arange(count) - (count - 1) / 2
        critical = stats.t.ppf(1 - level / 2, count - 1)
        size = optimize.brentq(lambda s, k=count, c=critical: stats.nct.sf(c, k - 1, s * np.sqrt(k)) - 0.8, 0.1, 10)
        assert pool(d).smallest_detectable(level) == pytest.approx(size * d.std(ddof=1), rel=1e-4)
    with pytest.raises(ValueError, match="finite dataset means"):
        pool([0.1, np.nan])
