"""The sign-flip test and its inversion against enumeration, scipy and simulation; power against simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats import signflip
from analysis.stats.power import pairs_for_verdict, pairs_needed, smallest_detectable
from analysis.stats.signflip import sign_flip_interval, sign_flip_p, smallest_p


def brute_p(d):
    """The definition: the share of all 2^n sign patterns whose |sum| is at least the observed one. Exact for integers."""
    observed = abs(sum(d))
    flips = itertools.product((1, -1), repeat=len(d))
    return sum(abs(sum(s * x for s, x in zip(signs, d, strict=True))) >= observed for signs in flips) / 2 ** len(d)


CASES = [
    [3],
    [0],
    [0, 0, 0],
    [1, -1],
    [5, 5, 5, 5, 5, 5],
    [1, 2, 3, 4, 5, 6, 7, 8],
    [-1, 2, 3, 4, 5, 6, 7, 8],
    [-3, -9, -2, 1, -4, -7],
    [0, 4, 0, -2, 7, 7, 7],
    [12, -5, 3, 3, -8, 1, 0, 6, 2],
]


@pytest.mark.parametrize("d", CASES)
def test_p_is_that_of_all_sign_patterns(d):
    assert sign_flip_p(d) == brute_p(d)


@pytest.mark.parametrize("d", CASES)
@pytest.mark.parametrize("alpha", [0.05, 0.0125, 0.2, 2 / 2**6, 4 / 2**8])
def test_interval_is_the_set_of_centres_the_test_keeps(d, alpha):
    low, high = sign_flip_interval(d, alpha)
    # centres are thirds, so that some are limits; tripled, the enumeration stays in integers
    for thirds in range(-42, 43):
        kept = brute_p([3 * x - thirds for x in d]) > alpha
        assert kept == (low <= thirds / 3 <= high), (thirds / 3, low, high)


@pytest.mark.parametrize("d", CASES[4:])
def test_limits_belong_to_the_interval_and_nothing_beyond_does(d):
    low, high = sign_flip_interval(d, 0.05)
    if math.isinf(low):
        assert smallest_p(len(d)) > 0.05
        return
    x = np.asarray(d, dtype=float)
    assert sign_flip_p(x - low) > 0.05 >= sign_flip_p(x - low + 1e-6)
    assert sign_flip_p(x - high) > 0.05 >= sign_flip_p(x - high - 1e-6)


def test_known_interval_of_one_to_eight():
    # 2^8 patterns at .05: rank int(.025 * 256) = 6 from either end of the 255 subset means.
    # In order from below: 1, 1.5, 2 ({2}), 2 ({1,3}), 2 ({1,2,3}), 7/3 ({1,2,4})
    assert sign_flip_interval([1, 2, 3, 4, 5, 6, 7, 8], 0.05) == pytest.approx((7 / 3, 9 - 7 / 3))


def test_too_few_pairs_have_no_limits():
    assert sign_flip_interval([1, 2, 3, 4, 5], 0.05) == (-math.inf, math.inf)
    assert smallest_p(5) == 2 / 32
    assert math.isfinite(sign_flip_interval([1, 2, 3, 4, 5, 6], 0.05)[0])


def test_ties_survive_rounding():
    # thousandths, whose binary sums are off by an ulp: 0.1 + 0.2 - 0.3 is 5.6e-17
    integers = [1, 2, -3, 1, 2, -3, 4]
    assert sign_flip_p([x * 0.1 for x in integers]) == brute_p(integers)
    accuracies = [0.95 + 0.001 * x for x in integers]
    assert sign_flip_p([a - 0.95 for a in accuracies]) == brute_p(integers)


@pytest.mark.parametrize("n", [6, 8, 10])
def test_p_agrees_with_scipy(n):
    d = np.random.default_rng(n).normal(0.4, 1, n)
    reference = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False)
    assert sign_flip_p(d) == pytest.approx(reference.pvalue, rel=1e-12)


def test_sampled_patterns_agree_with_all_of_them(monkeypatch):
    d = np.random.default_rng(3).normal(0.5, 1, 14)
    exact_p, exact_interval = sign_flip_p(d), sign_flip_interval(d, 0.05)
    monkeypatch.setattr(signflip, "EXACT_PAIRS", 10)
    assert sign_flip_p(d) == pytest.approx(exact_p, abs=4 * math.sqrt(exact_p / signflip.NUM_PATTERNS))
    assert sign_flip_p(d) != exact_p
    assert sign_flip_interval(d, 0.05) == pytest.approx(exact_interval, abs=0.01)


def test_many_pairs_are_sampled_valid_and_repeatable():
    d = np.random.default_rng(4).normal(1, 1, 40)
    assert sign_flip_p(np.ones(40)) == smallest_p(40) == 2 / 2**16
    assert sign_flip_p(d) == sign_flip_p(d.copy())
    low, high = sign_flip_interval(d, 0.05)
    half = stats.t.ppf(0.975, 39) * d.std(ddof=1) / math.sqrt(40)
    assert (low, high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.05)
    assert sign_flip_p(d - low) > 0.05 >= sign_flip_p(d - low + 1e-6)


@pytest.mark.parametrize("family", ["normal", "laplace", "uniform"])
def test_coverage_at_eight_pairs(family):
    generator = np.random.default_rng(8)
    draws = {"normal": generator.normal, "laplace": generator.laplace, "uniform": generator.uniform}[family]
    covered = 0
    for d in draws(-1.0, 1.0, (4000, 8)) + (1.0 if family != "uniform" else 0.0):
        low, high = sign_flip_interval(d, 0.05)
        covered += low <= 0 <= high
    assert 0.93 <= covered / 4000 <= 0.97


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf]])
def test_bad_differences_are_refused(bad):
    with pytest.raises(ValueError, match="differences"):
        sign_flip_p(bad)


def rejection_rate(n, effect, alpha, seed, num=2000):
    draws = np.random.default_rng(seed).normal(effect, 1, (num, n))
    return np.mean([sign_flip_p(d) <= alpha and d.mean() > 0 for d in draws])


@pytest.mark.parametrize(("n", "alpha"), [(6, 0.05), (8, 0.05), (10, 0.0125), (13, 0.05), (14, 0.0125)])
def test_smallest_detectable_effect_is_found_that_often(n, alpha):
    effect = smallest_detectable(n, alpha, sd=1.0, power=0.8)
    assert rejection_rate(n, effect, alpha, seed=100 + n) == pytest.approx(0.8, abs=0.03)


def test_smallest_detectable_falls_with_pairs_and_scales_with_sd():
    found = [smallest_detectable(n, 0.05, 1.0) for n in range(1, 40)]
    assert found[:5] == [math.inf] * 5
    assert all(a > b for a, b in itertools.pairwise(found[5:]))
    assert smallest_detectable(9, 0.05, 0.02) == pytest.approx(0.02 * found[8])
    assert smallest_detectable(8, 0.0125, 1.0) < math.inf == smallest_detectable(7, 0.0125, 1.0)


@pytest.mark.parametrize("n", [6, 9, 12, 13, 20, 30, 200])
def test_pairs_needed_inverts_smallest_detectable(n):
    effect = smallest_detectable(n, 0.05, 0.3) * 1.0001
    assert pairs_needed(effect, 0.3, 0.05) == n
    assert pairs_needed(-effect, 0.3, 0.05) == n


def test_pairs_needed_refuses_nothing_and_next_to_nothing():
    with pytest.raises(ValueError, match="zero"):
        pairs_needed(0.0, 1.0, 0.05)
    with pytest.raises(ValueError, match="100,000"):
        pairs_needed(1e-4, 1.0, 0.05)


def test_pairs_for_a_verdict():
    assert pairs_for_verdict(0.05, 4) == 10
    assert pairs_for_verdict(0.05, 4, num_against=1) == 9
    assert pairs_for_verdict(0.05, 4, num_against=0) == 8
    assert pairs_for_verdict(0.05, 1, num_against=0) == 6
    # what the count means: eight large pairs against two that sum to less than any of them, and one large pair fewer
    assert sign_flip_p([-1, -2, *range(10, 18)]) == 8 / 2**10 <= 0.05 / 4 < sign_flip_p([-1, -2, *range(10, 17)])


def test_no_pairs_and_one_pair_have_no_p_below_one():
    assert smallest_p(0) == smallest_p(1) == 1.0


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_ends_of_alpha_are_no_levels(alpha):
    with pytest.raises(ValueError, match="alpha"):
        sign_flip_interval([1.0, 2.0, 3.0], alpha)


def test_single_precision_is_summed_in_double():
    given = np.random.default_rng(3).normal(size=9).astype(np.float32)
    exact = sign_flip_interval(given.astype(np.float64), 0.05)
    assert sign_flip_interval(given, 0.05) == exact
