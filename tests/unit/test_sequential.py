"""Looks, spending, joint boundaries and repeated intervals: against enumeration, the single look, and Lan and DeMets."""

import itertools
import math

import numpy as np
import pytest

from analysis.stats import sequential
from analysis.stats.sequential import first_rejections, repeated_interval, sign_patterns, spent
from analysis.stats.signflip import sign_flip_interval, sign_flip_p

LOOKS = (10, 16, 24)
CASES = [([1, 2, 3, 4, 5, 6, 7], (4, 7)), ([5, -1, 4, 4, 3, 6, 2, 2], (5, 6, 8)), ([0, 9, 4, -2, 7, 7, 7], (3, 5, 7))]


def brute_rejects(d, looks, m, alpha, last):
    """At which looks the centre m is beyond the boundary, by the definition; exact for integers."""
    patterns = list(itertools.product((1, -1), repeat=len(d)))
    shifted = [x - m for x in d]
    gone, found = set(), []
    for n in looks:
        sums = {s: abs(sum(a * b for a, b in zip(s[:n], shifted, strict=False))) for s in patterns}
        allowed = math.floor(spent(n / last, alpha) * len(patterns) + 1e-9) - len(gone)
        left = sorted((sums[s] for s in patterns if s not in gone), reverse=True)
        # as many of the largest as may be rejected, without parting equals
        boundary = left[allowed]
        found.append(sums[(1,) * len(d)] > boundary)
        gone |= {s for s in patterns if s not in gone and sums[s] > boundary}
    return found


@pytest.mark.parametrize(("d", "looks"), CASES)
@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.4])
def test_the_interval_of_each_look_is_what_the_joint_boundary_keeps(d, looks, alpha):
    for k in range(1, len(looks) + 1):
        here = d[: looks[k - 1]]
        low, high = repeated_interval(here, looks[:k], [n / looks[-1] for n in looks[:k]], alpha)
        kept = {}
        for sixths in range(-60, 100):
            sixfold = [6 * x for x in here]
            kept[sixths / 6] = not brute_rejects(sixfold, looks[:k], sixths, alpha, looks[-1])[-1]
        inside = [m for m, is_kept in kept.items() if is_kept]
        # the set may have holes; the interval reaches from its first centre to its last
        assert all(low <= m <= high for m in inside)
        assert all(not kept[m] for m in kept if not low - 1e-5 <= m <= high + 1e-5)
        if math.isfinite(low) and min(inside) > -10:
            assert min(inside) - 1 / 6 <= low + 1e-5 and high - 1e-5 <= max(inside) + 1 / 6


@pytest.mark.parametrize("n", [6, 10, 16])
@pytest.mark.parametrize("alpha", [0.05, 0.0125, 0.2])
def test_one_look_is_the_sign_flip_test(n, alpha):
    for d in np.random.default_rng(n).normal(0.6, 1, (20, n)):
        assert repeated_interval(d, [n], [1.0], alpha) == sign_flip_interval(d, alpha)
        assert (first_rejections(d[None], [n], alpha)[0] == 0) == (sign_flip_p(d) <= alpha)


def test_spending_is_lan_and_demets():
    assert spent(1.0, 0.05) == pytest.approx(0.05)
    assert [spent(n / 24, 0.05) for n in LOOKS] == pytest.approx([0.0270, 0.0382, 0.05], abs=1e-4)
    # published Pocock-type boundary values for five equal looks at alpha .05, two-sided: 2.44 at the first
    assert spent(0.2, 0.05) == pytest.approx(2 * (1 - 0.99265), abs=2e-4)


def test_patterns_are_all_of_the_first_pairs_and_continued():
    signs = sign_patterns(24)
    assert signs.shape == (2**15, 24) and (signs[0] == 1).all() and (signs[:, 0] == 1).all()
    assert len(np.unique(signs[:, :16], axis=0)) == 2**15
    assert abs(signs[1:, 16:].mean()) < 0.01
    assert signs is sign_patterns(24)


def test_later_looks_keep_more_than_a_single_test_of_the_same_total_and_less_than_their_own_share():
    d = np.random.default_rng(1).normal(0.5, 1, 24)
    for k in (2, 3):
        n = LOOKS[k - 1]
        shares = [look / 24 for look in LOOKS[:k]]
        low, high = repeated_interval(d[:n], LOOKS[:k], shares, 0.05)
        inner = sign_flip_interval(d[:n], spent(shares[-1], 0.05))
        outer = sign_flip_interval(d[:n], spent(shares[-1], 0.05) - spent(shares[-2], 0.05))
        # 24 pairs are sampled: the brackets hold but for that
        assert outer[0] - 0.02 <= low <= inner[0] + 0.02 and inner[1] - 0.02 <= high <= outer[1] + 0.02


def test_zero_is_outside_just_where_the_test_rejects_it():
    planned = (8, 10, 13)
    draws = np.random.default_rng(2).normal(0.7, 1, (30, 13))
    ever = first_rejections(draws, planned, 0.05)
    assert set(ever.tolist()) == {0, 1, 2, 3}
    for d, found in zip(draws, ever, strict=True):
        looks = [
            not low <= 0 <= high
            for k in (1, 2, 3)
            for low, high in [repeated_interval(d[: planned[k - 1]], planned[:k], [n / 13 for n in planned[:k]], 0.05)]
        ]
        assert (looks.index(True) if True in looks else 3) == found


def test_ineligible_pairs_are_left_out_of_their_look():
    d = np.random.default_rng(3).normal(1, 1, 14)
    low, high = repeated_interval(d, [9, 14], [10 / 24, 16 / 24], 0.05)
    assert low < d.mean() < high
    assert repeated_interval(d[:3], [3], [10 / 24], 0.05) == (-math.inf, math.inf)


def test_equal_differences_and_ties():
    assert repeated_interval([2.0] * 16, [10, 16], [10 / 24, 16 / 24], 0.05) == (2.0, 2.0)
    tenths = [0.1 * x for x in (3, 1, 2, 2, 3, 3, 1, 2, 3, 3, 1, 1, 2, 2, 3, 1)]
    integers = [round(10 * x) for x in tenths]
    args = ([10, 16], [10 / 24, 16 / 24], 0.05)
    assert repeated_interval(tenths, *args) == pytest.approx(
        [x / 10 for x in repeated_interval(integers, *args)], rel=1e-5
    )


@pytest.mark.parametrize(
    ("d", "counts", "shares"),
    [([], [0], [1.0]), ([1.0, math.nan], [2], [1.0]), ([1.0], [2], [1.0]), ([1.0, 2.0], [2, 1], [0.5, 1.0]),
     ([1.0, 2.0], [1, 2], [0.5]), ([1.0, 2.0], [1, 2], [0.5, 0.5]), ([1.0], [1], [1.5])],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(d, counts, shares):
    with pytest.raises(ValueError, match="differences"):
        repeated_interval(d, counts, shares, 0.05)


def test_fewer_patterns_keep_the_level(monkeypatch):
    draws = np.random.default_rng(5).normal(0, 1, (2000, 24))
    few, many = (first_rejections(draws, LOOKS, 0.2, exact=exact) < 3 for exact in (9, 11))
    assert few.mean() == pytest.approx(many.mean(), abs=0.02)
    assert sequential.EXACT_PAIRS == 16
