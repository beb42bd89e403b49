"""Standard errors of what shares images, layers or probes: against closed forms, plain loops, and how often they cover."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from toys import SMALL, Fn, conv_context, fn_context, gated_net, gen, images, run

from study.registry import STATISTICS
from study.smoothness import Estimate, estimate
from study.smoothness.attention_importance import over_layers, resampled
from study.smoothness.hessian import lanczos, mass, share, trace
from study.smoothness.pairs import draw_pairs

LABELS = torch.arange(40) % 4
TUPLES = {
    "same": draw_pairs(LABELS, 150, True, gen(1)),
    "different": draw_pairs(LABELS, 150, False, gen(1)),
    "all": draw_pairs(LABELS, 10_000, False, gen(1)),
    # planes through three samples, of which some share two
    "triplets": torch.stack([torch.randperm(12, generator=gen(seed))[:3] for seed in range(40)]),
}


def by_loop(values, tuples):
    """Minus the mean product of deviations over all pairs of tuples without a common image."""
    deviations, sets = values - values.mean(), [set(row) for row in tuples.tolist()]
    apart = [
        a * b for a, s in zip(deviations, sets, strict=True) for b, t in zip(deviations, sets, strict=True) if not s & t
    ]
    return -np.mean(apart)


@pytest.mark.parametrize("kind", TUPLES)
def test_shared_images_are_those_of_a_plain_loop(kind):
    tuples, generator = TUPLES[kind], np.random.default_rng(3)
    values = generator.normal(size=40)[tuples].sum(1) + generator.normal(size=len(tuples))
    plain = values.std(ddof=1) / math.sqrt(len(values))
    expected = by_loop(values, tuples)
    assert math.sqrt(expected) > 1.2 * plain  # else nothing is tested
    found = estimate.mean(torch.tensor(values), tuples)
    assert (found.value, found.stderr) == (pytest.approx(values.mean()), pytest.approx(math.sqrt(expected)))


def test_without_a_shared_image_the_error_is_the_plain_one():
    values, pairs = torch.randn(50, generator=gen()).double(), torch.arange(100).view(50, 2)
    for of in (estimate.mean, lambda v, images=None: estimate.log_of_mean(v + 9, images=images)):
        assert of(values, images=pairs).stderr == pytest.approx(of(values).stderr, rel=1e-12)


def test_shared_images_never_make_a_mean_more_certain():
    # around a square of images neighbours' values alternate, so that products of pairs that share an image are negative
    pairs, values = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert by_loop(values.numpy(), pairs) < 0
    assert estimate.mean(values, pairs).stderr == estimate.mean(values).stderr > 0


@pytest.mark.parametrize("pairs", [[[0, 1], [1, 2], [2, 0]], [[0, 1], [0, 2], [0, 3], [0, 4]]])
def test_where_all_share_images_there_is_no_error(pairs):
    found = estimate.mean(torch.arange(len(pairs)), torch.tensor(pairs))
    assert (found.value, math.isnan(found.stderr), found.converged) == ((len(pairs) - 1) / 2, True, False)


@pytest.mark.parametrize("kind", TUPLES)
@pytest.mark.parametrize("transformed", ["mean", "log of mean", "ratio"])
def test_errors_over_shared_images_cover(kind, transformed):
    """Values are 10 and the sum of independent effects of their images and of their own: the variance has a closed form."""
    tuples, generator = TUPLES[kind], np.random.default_rng([len(kind), len(transformed)])
    num_images, n = int(tuples.max()) + 1, 400
    own = 0.5
    effects = generator.normal(size=(n, num_images))[:, tuples].sum(2) + own * generator.normal(size=(n, len(tuples)))
    times = np.bincount(tuples.flatten(), minlength=num_images)
    variance = ((times**2).sum() + own**2 * len(tuples)) / len(tuples) ** 2
    values, below = torch.tensor(10 + effects), torch.tensor(5 + generator.normal(size=effects.shape) / 10)
    of, truth, slope = {
        "mean": (lambda v, _: estimate.mean(v, tuples), 10.0, 1.0),
        "log of mean": (lambda v, _: estimate.log_of_mean(v, images=tuples), math.log(10), 1 / 10),
        "ratio": (lambda v, b: estimate.ratio_of_means(v, b, images=tuples), 2.0, 1 / 5),
    }[transformed]
    found = [of(*each) for each in zip(values, below, strict=True)]
    stated = np.mean([each.stderr**2 for each in found])
    assert stated == pytest.approx(slope**2 * variance, rel=0.15)
    quantile = stats.t.ppf(0.975, num_images - 1)
    assert np.mean([abs(each.value - truth) <= quantile * each.stderr for each in found]) == pytest.approx(
        0.94, abs=0.035
    )


def test_errors_of_path_cover_where_pairs_outnumber_images():
    """Images of one number x, drawn anew each time; the excess variation of sin(7 x) depends on both ends of a path."""
    model = Fn(lambda x: torch.sin(7 * x.flatten(1)) * torch.tensor([1.0, -1.0]), 2)
    settings = {"num_pairs": 400, "num_steps": 8}

    def measured(seed, n, **kwargs):
        x = torch.rand(n, 1, 1, 1, generator=gen(seed))
        return run("path", fn_context(model, x, seed=seed, chunk=4096), **settings | kwargs)

    names = [
        f"path_{kind}_{name}" for kind in ("same", "different") for name in ("excess_variation", "excess_variation_log")
    ]
    truth = measured(0, 20_000, num_pairs=10_000)
    found = [measured(seed, 40) for seed in range(1, 101)]
    for name in names:
        inside = [abs(each[name].value - truth[name].value) <= 2.02 * each[name].stderr for each in found]
        assert 0.88 <= np.mean(inside) <= 0.99, name


@pytest.mark.parametrize(
    ("statistic", "name", "settings"),
    [
        ("path", "path_different_linear_gap", {"num_pairs": 100, "num_steps": 4}),
        (
            "linear_regions",
            "regions_same_transitions",
            {"num_pairs": 60, "num_samples": 2, "num_steps": 4, "sigmas": [4]},
        ),
        ("frequency", "frequency_logits_different_above_1", {"num_pairs": 60, "num_steps": 4, "above": [1]}),
        ("path_picture", "path_picture_third_class", {"num_pairs": 60, "num_steps": 4}),
        ("decision_regions", "decision_regions_components", {"num_planes": 60, "num_points": 5}),
    ],
)
def test_every_statistic_between_images_says_that_they_are_shared(statistic, name, settings):
    model = Fn(lambda x: torch.relu(torch.sin(9 * x.flatten(1)[:, :3])), 3)
    found = run(statistic, fn_context(model, images(15)), **settings)[name]
    assert found.stderr > 1.01 * float(found.samples.std()) / math.sqrt(len(found.samples)) > 0


# --- layers -----------------------------------------------------------------------------------------------------------


def test_layers_share_their_images():
    """Of two layers that move together the mean is as uncertain as each; of two that move against each other it is not."""
    spread = torch.randn(200, generator=gen()).double()
    one, other = (resampled(torch.tensor([0.5]), 0.5 + sign * spread, 9) for sign in (1, -1))
    assert over_layers([one, one]) == one
    assert over_layers([one, other]).stderr == pytest.approx(0, abs=1e-12)
    assert torch.equal(over_layers([one, one]).resamplings, one.resamplings)  # for the ratio to the ceiling
    by_image = torch.randn(30, generator=gen()).double()
    first, second = (estimate.mean(sign * by_image) for sign in (1, -1))
    assert over_layers([first, first]) == first
    assert over_layers([first, second]).stderr == 0
    assert math.isnan(over_layers([Estimate(0.9, math.nan, 9, True)] * 2).stderr)
    assert not over_layers([one, one.provided(False)]).converged


# --- probes -----------------------------------------------------------------------------------------------------------


def runs_of(matrix, seed, num=5, steps=3):
    signs = torch.randint(0, 2, (num, len(matrix)), generator=gen(seed))
    return [lanczos(lambda v: matrix @ v, 2.0 * each.double() - 1, steps) for each in signs]


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_traces_error_is_that_of_random_signs(steps):
    """Of v . A v over random signs the variance is 2 (norm_F(A)^2 - sum of A_ii^2); the bound leaves the last sum out."""
    matrix = torch.randn(30, 30, generator=gen(1)).double()
    matrix = matrix + matrix.T
    found = trace(runs_of(matrix, 2, num=400, steps=steps), 30)
    assert found.stderr**2 == pytest.approx(2 * float((matrix**2).sum()) / 400, rel=0.05)
    single = trace(runs_of(matrix, 2, num=1, steps=steps), 30)
    assert not single.converged


@pytest.mark.parametrize("rank", [1, 3])
def test_five_probes_cover_the_trace_of_few_eigenvalues(rank):
    vectors = torch.linalg.qr(torch.randn(200, rank, generator=gen(1)).double())[0]
    matrix = vectors @ vectors.T
    inside = [abs(e.value - rank) <= 1.96 * e.stderr for e in (trace(runs_of(matrix, s), 200) for s in range(400))]
    assert 0.88 <= np.mean(inside) <= 0.97


def test_a_share_of_eigenvalues_has_the_quadratures_error_too():
    """400 eigenvalues of about the limit: 20 products cannot tell which lie below, and five probes agree all the same."""
    values = torch.cat([torch.tensor([1.0, 0.6, 0.3, 0.2]), 1e-3 * torch.randn(400, generator=gen(1)).abs()]).double()
    vectors = torch.linalg.qr(torch.randn(404, 404, generator=gen(2)).double())[0]
    matrix, truth = vectors @ torch.diag(values) @ vectors.T, float((values < 1e-3).double().mean())
    inside, over_probes = [], []
    for seed in range(20):
        runs = runs_of(matrix, seed, steps=20)
        found, masses = share(runs, -1e-3, 1e-3), mass(runs, -1e-3, 1e-3)
        inside.append(abs(found.value - truth) <= 2.776 * found.stderr)
        over_probes.append(abs(found.value - truth) <= 2.776 * float(masses.std()) / math.sqrt(5))
    assert np.mean(over_probes) < 0.7 < 0.85 <= np.mean(inside)


def test_half_a_run_is_the_run_of_half_the_products():
    matrix = torch.randn(30, 30, generator=gen(1)).double()
    matrix = matrix + matrix.T
    for whole, half in zip(runs_of(matrix, 3, steps=9), runs_of(matrix, 3, steps=4), strict=True):
        assert torch.equal(whole.half().values, half.values) and torch.equal(whole.half().weights, half.weights)
    assert runs_of(matrix, 3, num=1, steps=1)[0].half().num_products == 1


def test_what_resampling_pulls_down_counts_as_error():
    value, spread = torch.tensor([0.5]), 0.3 + 0.1 * torch.randn(4000, generator=gen(1)).double()
    assert resampled(value, spread, 9).stderr == pytest.approx(math.hypot(0.2, 0.1), rel=0.02)


@pytest.mark.parametrize("name", SMALL)
def test_every_statistic_says_how_often_its_intervals_hold(name):
    said = " ".join(STATISTICS[name].build.__doc__.split())
    assert re.search(r"Coverage of \.95 intervals|1\.96 (of them|standard errors) held", said)


def test_the_ratio_to_the_ceiling_has_a_value_and_an_error():
    found = run("attention_importance", conv_context(gated_net(), images(40)), num_samples=40)
    for kind in ("zero", "taylor"):
        ratio = found[f"attention_importance_ratio_{kind}"]
        assert math.isfinite(ratio.value) and ratio.stderr > 0
