"""The verdict rule against the text of docs/method.md, case by case; Holm's levels; rounding that must not decide anything."""

import math

import numpy as np
import pytest

from analysis.effects.compare import subtract
from analysis.stats.holm import holm, holm_levels
from analysis.stats.signflip import sign_flip_interval, sign_flip_p
from analysis.stats.verdicts import Limits, claim_verdict, comparison_verdict, oriented
from analysis.trials.outcomes import other_scales

JACOBIAN = "jacobian_unit_logits_mean_log"


def limits(low, high, of_k=None):
    return Limits(low=low, high=high, high_refute=high if of_k is None else of_k, margin=1.0)


@pytest.mark.parametrize(
    ("low", "high", "of_k", "verdict"),
    [
        (0.1, 2.0, None, "supported"),
        (0.1, 1.0, None, "supported"),  # U >= margin, at the edge
        (0.1, 1.0 - 1e-12, None, "supported"),  # the margin but for rounding
        (1.5, 2.0, None, "supported"),
        (0.1, 0.9, None, "refuted"),  # above zero, yet smaller than what was asked for
        (-2.0, -1.0, None, "refuted"),
        (-1.0, 0.99, None, "refuted"),
        (0.0, 2.0, None, "undecided"),  # L > 0 is strict
        (-1.0, 1.0, None, "undecided"),
        (-math.inf, math.inf, None, "undecided"),
        (-1.0, 0.9, 1.1, "undecided"),  # below the margin at the claim's level, not at level / k
        (0.1, 0.9, 1.1, "undecided"),
        (-1.0, 0.8, 0.9, "refuted"),
    ],
)
def test_one_comparison(low, high, of_k, verdict):
    assert comparison_verdict(limits(low, high, of_k)) == verdict


HOLDS, FALLS, OPEN = limits(0.1, 2.0), limits(-1.0, 0.5), limits(-1.0, 2.0)


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([HOLDS], "supported"),
        ([HOLDS, HOLDS, HOLDS], "supported"),  # all comparators hold
        ([HOLDS, HOLDS, OPEN], "undecided"),
        ([HOLDS, HOLDS, FALLS], "refuted"),  # any one refutes
        ([OPEN, FALLS], "refuted"),
        ([HOLDS, None], "undecided"),  # a co-primary that allows no verdict cannot hold
        ([None, FALLS], "refuted"),
        ([None], "undecided"),
        ([], "undecided"),
    ],
)
def test_claims_of_several_comparisons(parts, verdict):
    assert claim_verdict([parts], num_blocks=10) == verdict
    assert claim_verdict([parts], num_blocks=1) == "no verdict"
    assert claim_verdict([parts], num_blocks=10, held_back=True) == "undecided"


def test_limits_turn_with_the_direction():
    assert oriented(-2.0, 1.0, "higher") == (-2.0, 1.0)
    assert oriented(-2.0, 1.0, "lower") == (-1.0, 2.0)
    assert math.copysign(1, oriented(0.0, 1.0, "lower")[1]) == 1
    with pytest.raises(ValueError, match="no interval"):
        comparison_verdict(limits(2.0, 1.0))


def test_levels_by_hand():
    parts = {"a": 0.01, "b": 0.04, "c": 0.03, "d": None}
    # a: .01 <= .05 / 4; c: .03 > .05 / 3, where it stays for the rest
    assert holm_levels(parts, 0.05) == pytest.approx({"a": 0.0125, "c": 0.05 / 3, "b": 0.05 / 3, "d": 0.05 / 3})
    assert holm_levels({"a": 0.001, "b": 0.02}, 0.05) == pytest.approx({"a": 0.025, "b": 0.05})
    assert holm_levels({}, 0.05) == {}


def test_the_lower_limit_at_the_level_agrees_with_holm():
    generator = np.random.default_rng(5)
    for _ in range(20):
        data = {name: generator.normal(shift, 1, 9) for name, shift in (("a", 0.4), ("b", 0.9), ("c", 1.4))}
        parts = {name: sign_flip_p(d) if d.mean() > 0 else 1.0 for name, d in data.items()}
        levels, adjusted = holm_levels(parts, 0.05), holm(parts)
        for name, d in data.items():
            assert (sign_flip_interval(d, levels[name])[0] > 0) == (adjusted[name] <= 0.05)


def test_rounding_leaves_exact_zeros():
    a, b = np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.25])
    assert subtract(a, b).tolist() == [0.0, 0.25]
    d = [0.1, 0.2, -0.3, 0.1, 0.2, -0.3, 0.0, 0.0]
    assert sign_flip_interval(d, 0.9) == (0.0, 0.0)


def test_scales_of_one_statistic():
    assert other_scales(JACOBIAN) == ["jacobian_probabilities_mean_log"]
    assert other_scales("path_different_excess_variation_log") == [
        "path_different_excess_variation_probabilities",
        "path_different_excess_variation_unit_logits",
    ]
    assert other_scales("noise_16_l1") == ["noise_16_l1_tempered"]
    assert other_scales("noise_16_accuracy") == []
    assert other_scales("frequency_logits_same_above_4") == [
        "frequency_unit_logits_same_above_4",
        "frequency_tempered_same_above_4",
    ]
    assert other_scales("test/accuracy") == []


def test_a_level_is_judged_as_a_comparison():
    assert oriented(0.1, 0.3, "lower", 0.5) == pytest.approx((0.2, 0.4))
    assert oriented(0.1, 0.3, "higher", 0.5) == pytest.approx((-0.4, -0.2))
    rng, seen = np.random.default_rng(5), set()
    for below, gap, low, width in rng.uniform(-1, 1, (2000, 4)) * (1, 0.5, 1, 0.5):
        above, high = below + abs(gap), low + abs(width)
        wanted = "supported" if high < below else "refuted" if low > above else "undecided"
        turned = oriented(low, high, "lower", below)
        assert oriented(*turned, "lower", below) == pytest.approx((low, high))
        limits = Limits(low=turned[0], high=turned[1], high_refute=turned[1], margin=below - above)
        assert claim_verdict([[limits]], num_blocks=8) == wanted
        seen.add(wanted)
    assert len(seen) == 3


@pytest.mark.parametrize("ends", [(math.nan, 1.0), (0.0, math.nan), (2.0, 1.0)])
def test_limits_that_are_no_interval_are_refused(ends):
    with pytest.raises(ValueError, match="no interval"):
        comparison_verdict(Limits(low=ends[0], high=ends[1], high_refute=1.0, margin=0.5))


def test_a_limit_at_a_margin_of_zero_is_not_below_it():
    assert comparison_verdict(Limits(low=-1.0, high=0.0, high_refute=0.0, margin=0.0)) == "undecided"
    assert comparison_verdict(Limits(low=-1.0, high=0.0, high_refute=-1e-300, margin=0.0)) == "refuted"
