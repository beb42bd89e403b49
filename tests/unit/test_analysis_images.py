"""The variance of the draw of test images: against an ordinary ANOVA, in simulation, and where it turns a verdict round."""

import base64
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from book import Book, find, synthetic_spec
from statsmodels.formula.api import ols

from analysis.effects.image_variance import correctness, t_interval, two_way
from analysis.inputs import Inputs
from analysis.stats.power import smallest_detectable, smallest_detectable_t
from analysis.stats.signflip import sign_flip_interval
from analysis.tables.build import build_table

ONE_DEPTH = {"factors": [{"merge": ["add", "add_alias", "mul"], "depth": [8]}], "blocks": 10}


def keep(book, key, correct):
    """Put the correctness of test images into a record, and the accuracy that goes with it."""
    record = book.contents.replicates[key]
    record["test_correct"] = base64.b64encode(np.packbits(correct)).decode()
    record["num_test"] = len(correct)
    record["metrics"]["test/accuracy"] = float(np.mean(correct))


def inputs_of(book, **changes):
    return Inputs(spec=synthetic_spec(**(ONE_DEPTH | changes)), contents=book.contents, chance={"digits": 0.1})


def drawn(seed=3, shape=(5, 12), sd_image=2.0):
    generator = np.random.default_rng(seed)
    parts = generator.normal(size=(shape[0], 1)) + sd_image * generator.normal(size=(1, shape[1]))
    return np.rint(10 * (parts + generator.normal(size=shape))).astype(np.int64)


def test_mean_squares_are_those_of_statsmodels():
    values = drawn()
    frame = pd.DataFrame([(r, i, values[r, i] / 10) for r in range(5) for i in range(12)], columns=["r", "i", "d"])
    table = sm.stats.anova_lm(ols("d ~ C(r) + C(i)", frame).fit())
    layout = two_way(values, scale=10)
    squares = table["sum_sq"] / table["df"]
    assert layout.ms_replicate == pytest.approx(squares["C(r)"])
    assert layout.ms_image == pytest.approx(squares["C(i)"])
    assert layout.ms_residual == pytest.approx(squares["Residual"])
    assert layout.mean == pytest.approx(frame["d"].mean())


def test_the_variance_is_the_three_terms_of_the_method():
    values = drawn() / 10
    n, num = values.shape
    residual = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    s2_residual = (residual**2).sum() / ((n - 1) * (num - 1))
    s2_replicate, s2_image = values.mean(axis=1).var(ddof=1), values.mean(axis=0).var(ddof=1)
    expected = s2_replicate / n + s2_image / num - s2_residual / (n * num)
    layout = two_way(drawn(), scale=10)
    assert layout.standard_error**2 == pytest.approx(expected)
    terms = [(s2_replicate / n, n - 1), (s2_image / num, num - 1), (s2_residual / (n * num), (n - 1) * (num - 1))]
    assert layout.degrees == pytest.approx(expected**2 / sum(t**2 / df for t, df in terms))


def test_shares_are_floored_at_zero():
    # images agree better than noise would have them: only replicates are left, and the interval is the t interval
    noisy = np.array([[2, 0, 0], [0, 0, 2], [1, 2, 1]])
    replicates = np.vstack([noisy, 3 + noisy, 6 + noisy])
    layout = two_way(replicates)
    assert layout.ms_image < layout.ms_residual < layout.ms_replicate
    assert (layout.degrees, layout.standard_error) == (8, pytest.approx(replicates.mean(axis=1).std(ddof=1) / 3))
    images = two_way(replicates.T)
    assert images.ms_replicate < images.ms_residual < images.ms_image
    assert (images.degrees, images.standard_error) == (8, pytest.approx(layout.standard_error))
    neither = two_way(np.array([[1, -1], [-1, 1]]))
    assert (neither.ms_replicate, neither.ms_image, neither.ms_residual) == (0, 0, 4)
    assert (neither.degrees, neither.standard_error) == (1, 1.0)


def test_layouts_too_small_or_constant():
    assert two_way(np.ones((1, 5), int)) is None and two_way(np.ones((5, 1), int)) is None
    layout = two_way(np.zeros((4, 6), int))
    assert (layout.standard_error, layout.degrees) == (0.0, 3.0)
    assert t_interval(0.0, 0.0, 3.0, 0.05) == (0.0, 0.0)


def test_intervals_cover_where_sign_flips_over_replicates_alone_do_not():
    """400 studies of 10 replicates and 500 images, both drawn: standard error of a coverage of .95 is .011."""
    generator = np.random.default_rng(11)
    covered = {"images": 0, "sign-flip": 0}
    for _ in range(400):
        chance = generator.uniform(0.5, 0.9, size=500)
        other = chance + 0.05 * generator.choice([-1, 1], size=500)  # harder for one arm or for the other
        arm = generator.random((10, 500)) < chance + 0.01 * generator.normal(size=(10, 1))
        d = arm.astype(np.int64) - (generator.random((10, 500)) < other)
        layout = two_way(d)
        low, high = t_interval(layout.mean, layout.standard_error, layout.degrees, 0.05)
        covered["images"] += low <= 0 <= high
        low, high = sign_flip_interval(d.mean(axis=1), 0.05)
        covered["sign-flip"] += low <= 0 <= high
    assert 0.92 <= covered["images"] / 400 <= 0.98
    assert covered["sign-flip"] < covered["images"]


def test_image_effects_that_all_replicates_share_widen_the_interval():
    """Ten identical pairs of networks have no spread at all, and yet a test split of other images would change the mean."""
    generator = np.random.default_rng(2)
    reference = generator.random(200) < 0.7
    arm = np.where(generator.random(200) < 0.2, ~reference, reference)
    book = Book()
    for block in range(10):
        for merge, correct in (("add", reference), ("add_alias", reference), ("mul", arm)):
            keep(book, book.confirm(merge, 8, block, 0.0), correct)
    row = find(build_table(inputs_of(book), "effects"), arm="merge=mul", stratum="all", outcome="test/accuracy")
    d = arm.astype(float) - reference
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((d.mean(), d.mean()))
    assert row["images_se"] == pytest.approx(d.std(ddof=1) / math.sqrt(200))
    # the t interval of 200 images: nothing else varies
    assert row["images_df"] == pytest.approx(199)
    assert (row["images_low"], row["images_high"]) == pytest.approx(
        t_interval(d.mean(), d.std(ddof=1) / math.sqrt(200), 199, 0.05)
    )
    assert row["n_images"] == 200


def shifted(shift, num_images, generator, image_effect):
    """Correctness of reference and arm, ten blocks each: the arm better by ``shift`` on average over all images there are.

    ``image_effect`` is the share of images that only one arm names rightly, the same in every replicate.
    """
    which = generator.random(num_images)
    base = generator.random(num_images) < 0.8
    only_arm = which < (image_effect + shift) / 2
    only_reference = (which >= (image_effect + shift) / 2) & (which < image_effect)
    for _ in range(10):
        noise = generator.random((2, num_images)) < 0.002
        reference = np.where(only_reference, True, np.where(only_arm, False, base)) ^ noise[0]
        arm = np.where(only_arm, True, np.where(only_reference, False, base)) ^ noise[1]
        yield reference, arm


def test_the_hull_of_both_intervals_decides_the_verdict():
    """Ten replicates agree on +4 points, but on 300 images of which 30% are named rightly by one arm alone."""
    books = {"with": Book(), "without": Book()}
    for name, book in books.items():
        generator = np.random.default_rng(8)
        for block, (reference, arm) in enumerate(shifted(0.04, 300, generator, 0.3)):
            for merge, correct in (("add", reference), ("add_alias", reference), ("mul", arm)):
                key = book.confirm(merge, 8, block, float(correct.mean()), estimates={})
                if name == "with":
                    keep(book, key, correct)
    claims = {"C4": synthetic_spec().model_dump()["claims"]["C4"]}
    parts = {
        name: find(build_table(inputs_of(book, claims=claims), "claim_parts"), claim="C4")
        for name, book in books.items()
    }
    without, counted = parts["without"], parts["with"]
    assert (without["verdict"], without["interval"], without["images_low"]) == ("supported", "sign-flip", None)
    assert (counted["verdict"], counted["interval"]) == ("undecided", "test images")
    assert counted["effect"] == without["effect"] > 0.02
    assert (counted["sign_flip_low"], counted["sign_flip_high"]) == (without["ci_low"], without["ci_high"])
    assert counted["images_low"] == counted["ci_low"] < 0 < without["ci_low"]
    assert counted["images_high"] == counted["ci_high"] > without["ci_high"]
    assert counted["smallest_detectable"] > without["smallest_detectable"]
    row = find(build_table(inputs_of(books["with"], claims=claims), "claims"), claim="C4")
    assert row["estimand"].endswith(", 10 pairs, 300 test images counted).")
    assert row["change"] == "More test images as well as more blocks: the interval counts both."
    effects = build_table(inputs_of(books["with"], claims=claims), "effects")
    effect = find(effects, arm="merge=mul", stratum="all", outcome="test/accuracy")
    assert effect["p_holm"] == effect["p_images"] > 0.05 > effect["p_sign_flip"]


def test_pooling_averages_correctness_over_strata_within_a_replicate():
    generator = np.random.default_rng(4)
    book, correct = Book(), {}
    for block in range(8):
        for depth in (8, 14):
            for merge in ("add", "add_alias", "mul"):
                correct[merge, depth, block] = generator.random(60) < 0.8
                keep(book, book.confirm(merge, depth, block, 0.0), correct[merge, depth, block])
    inputs = Inputs(spec=synthetic_spec(), contents=book.contents)
    row = find(build_table(inputs, "effects"), arm="merge=mul", stratum="all", outcome="test/accuracy")
    d = np.array(
        [sum(correct["mul", depth, b].astype(int) - correct["add", depth, b] for depth in (8, 14)) for b in range(8)]
    )
    layout = two_way(d, scale=2)
    assert row["mean_difference"] == pytest.approx(layout.mean)
    assert (row["images_se"], row["images_df"]) == pytest.approx((layout.standard_error, layout.degrees))
    assert row["images_df"] > 0


def test_correctness_of_every_eligible_pair_or_none():
    generator = np.random.default_rng(5)
    book, correct = Book(), {}
    for block in range(10):
        for merge in ("add", "add_alias", "mul"):
            if (merge, block) == ("mul", 1):
                book.replicate("mul", 8, 1, state="diverged")
                continue
            state = "collapsed" if (merge, block) == ("mul", 0) else "completed"
            correct[merge, block] = right = generator.random(41) < 0.8
            keep(book, book.confirm(merge, 8, block, float(right.mean()), state=state), right)
    found = build_table(inputs_of(book), "effects")
    row = find(found, arm="merge=mul", stratum="all", outcome="test/accuracy")
    assert (row["n_pairs"], row["n_images"]) == (10, 41)
    # a diverged network names every image rightly with the probability of guessing
    d = np.array([correct.get(("mul", b), np.full(41, 0.1)) - correct["add", b].astype(float) for b in range(10)])
    layout = two_way(np.round(10 * d).astype(int), scale=10)
    assert row["mean_difference"] == pytest.approx(d.mean())
    assert (row["images_se"], row["images_df"]) == pytest.approx((layout.standard_error, layout.degrees))
    assert find(found, arm="merge=mul", stratum="all", outcome="test/loss")["images_se"] is None
    del book.contents.replicates["merge=mul,depth=8/confirm/5/1"]["num_test"]  # written before correctness was kept
    row = find(build_table(inputs_of(book), "effects"), arm="merge=mul", stratum="all", outcome="test/accuracy")
    assert (row["n_pairs"], row["images_se"], row["n_images"], row["p_images"]) == (10, None, None, None)
    assert len(correctness(book.contents)) == 28
    book.contents.replicates["merge=mul,depth=8/confirm/6/1"]["num_test"] = 49
    with pytest.raises(ValueError, match="6 bytes of correctness for 49 test images"):
        correctness(book.contents)


def test_one_replicate_has_no_image_interval():
    book = Book()
    for merge in ("add", "add_alias", "mul"):
        keep(book, book.confirm(merge, 8, 0, 0.0), np.arange(20) % 2 == 0)
    row = find(build_table(inputs_of(book), "effects"), arm="merge=mul", stratum="all", outcome="test/accuracy")
    assert (row["n_pairs"], row["images_se"], row["ci_low"]) == (1, None, -math.inf)


def test_power_of_the_t_interval_is_that_of_many_pairs():
    pairs = smallest_detectable(30, 0.05, 1.0)
    assert smallest_detectable_t(1 / math.sqrt(30), 29, 0.05) == pytest.approx(pairs)
    # (z_.975 + z_.8) standard errors in the limit
    assert smallest_detectable_t(1.0, 1e6, 0.05) == pytest.approx(1.959964 + 0.841621, abs=1e-3)
    with pytest.raises(ValueError, match="degrees > 0"):
        smallest_detectable_t(1.0, 0.0, 0.05)
