"""The rule's error rates over 10,000 simulated studies of symmetric differences: coverage, and false verdicts of support."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.sequential import first_rejections, sign_patterns
from analysis.stats.signflip import sign_flip_interval, sign_flip_p
from analysis.stats.verdicts import Limits, comparison_verdict
from benchmarks import rules

NUM = 10_000
LOOKS = (10, 16, 24)
NUM_CLAIMS = 4
# 512 patterns a study; fewer patterns keep the level and make 10,000 studies a matter of seconds
EXACT = 10

DRAWS = {
    "normal": lambda g, shape: g.standard_normal(shape),
    "uniform": lambda g, shape: g.uniform(-1, 1, shape),
    "heavy tails": lambda g, shape: g.standard_t(3, shape),
}


def draws(family, *shape):
    generator = np.random.Generator(np.random.PCG64([len(family), *shape]))
    return DRAWS[family](generator, shape)


@pytest.mark.parametrize("family", DRAWS)
@pytest.mark.parametrize("n", [8, 10])
def test_coverage_of_the_interval(family, n):
    """.95 intervals hold the centre in at least .945 of 10,000 studies (standard error .002), and are not idle."""
    covered = np.mean(first_rejections(draws(family, NUM, n), [n], 0.05, exact=EXACT) == 1)
    assert 0.945 <= covered <= 0.965


@pytest.mark.parametrize("family", DRAWS)
def test_coverage_of_the_repeated_intervals_of_all_looks_together(family):
    covered = np.mean(first_rejections(draws(family, NUM, LOOKS[-1]), LOOKS, 0.05, exact=EXACT) == 3)
    assert 0.945 <= covered <= 0.965


@pytest.mark.parametrize("looks", [(10,), LOOKS], ids=str)
@pytest.mark.parametrize("shared", [0.0, 0.9], ids=["independent", "alike"])
def test_four_null_claims_are_falsely_supported_in_at_most_055(looks, shared):
    """Support needs L > 0, so a study with no claim's limit above zero has no false support; looks included.

    In one look Holm's first step, alpha / 4, decides whether any claim is supported at all.
    """
    own, common = draws("normal", NUM, NUM_CLAIMS, looks[-1]), draws("normal", NUM, 1, looks[-1])
    d = (np.sqrt(1 - shared) * own + np.sqrt(shared) * common).reshape(NUM * NUM_CLAIMS, looks[-1])
    found = first_rejections(d, looks, 0.05 / NUM_CLAIMS, exact=EXACT).reshape(NUM, NUM_CLAIMS)
    sums = np.stack([d[:, :n].sum(axis=1) for n in looks] + [np.zeros(len(d))])
    upward = np.take_along_axis(sums, found.reshape(1, -1), axis=0).reshape(NUM, NUM_CLAIMS) > 0
    either = np.mean((found < len(looks)).any(axis=1))
    assert np.mean(upward.any(axis=1)) <= 0.055
    assert 0.005 < either <= 0.055  # in either direction too, and the looks do reject


def test_power_is_kept_by_the_looks_and_fewer_blocks_do():
    """An effect of one spread at level .0125: power .95 against .98 of one look at 24 pairs, for 17 blocks on average."""
    d = draws("normal", 4000, LOOKS[-1]) + 1.0
    found = first_rejections(d, LOOKS, 0.0125, exact=EXACT)
    one = np.mean(first_rejections(d, LOOKS[-1:], 0.0125, exact=EXACT) == 0)
    assert np.mean(found < 3) > one - 0.04
    assert np.mean(np.array([*LOOKS, LOOKS[-1]])[found]) < 18


@pytest.mark.parametrize("n", [8, 10])
def test_the_vectorised_test_is_the_one_in_use(n):
    d = draws("normal", 300, n) + 0.5
    p = np.array([sign_flip_p(row) for row in d])
    assert np.array_equal(first_rejections(d, [n], 0.05, exact=EXACT) == 0, p <= 0.05)
    assert 0.1 < np.mean(p <= 0.05) < 0.9 and len(sign_patterns(n, EXACT)) == 2 ** (n - 1)


def test_a_signed_rank_test_has_the_same_error_rate():
    """An independent public test on the same draws: rejections of both stay at the level."""
    d = draws("normal", 2000, 10)
    ranks = np.mean(stats.wilcoxon(d, axis=1).pvalue <= 0.05)
    flips = np.mean(first_rejections(d, [10], 0.05, exact=EXACT) == 0)
    assert ranks == pytest.approx(flips, abs=0.015) and flips <= 0.06


def test_the_rules_hold_their_error_rates_by_an_implementation_of_its_own():
    """A small version of ``python -m benchmarks.rules``: each bound within three standard errors."""
    bounded = [rate for rate in rules.all_rates(300) if rate.wanted.startswith("<=")]
    assert len(bounded) >= 14
    for rate in bounded:
        bound = float(rate.wanted.removeprefix("<="))
        assert rate.share <= bound + 3 * np.sqrt(bound * (1 - bound) / rate.studies), rate
    strata = {rate.rule: rate.share for rate in rules.strata_rule(300, 10) if "+4" in rate.case}
    assert strata["6 pooled support alone"] > 0.7 and strata["6 unless a stratum lies below zero"] < 0.05


@pytest.mark.parametrize("n", [8, 10, 12])
def test_both_implementations_give_the_same_verdicts(n):
    d = draws("normal", 150, n) * 0.7 + np.linspace(-1.0, 2.0, 150)[:, None]
    level, refute = 0.025, 0.0125
    p_zero, p_margin, mean = rules.p_flip(d), rules.p_flip(d, 1.0), d.mean(axis=1)
    low, high = (p_zero <= level) & (mean > 0), (rules.p_flip(d, 1.0) <= level) & (mean < 1.0)
    theirs = np.where((p_margin <= refute) & (mean < 1), "refuted", np.where(low & ~high, "supported", "undecided"))
    ours = []
    for row in d:
        limits = sign_flip_interval(row, level), sign_flip_interval(row, refute)
        ours.append(
            comparison_verdict(Limits(low=limits[0][0], high=limits[0][1], high_refute=limits[1][1], margin=1.0))
        )
    assert ours == theirs.tolist()
    assert n == 8 or len(set(ours)) == 3
