"""Spectral density by quadrature against known spectra; Hessian and Jacobian against independent estimators.

The public Hessian tool is hessian-eigenthings (https://github.com/noahgolmant/pytorch-hessian-eigenthings).
"""

import math

import hessian_eigenthings as public
import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn
from toys import conv_context, conv_net, gen, images, run

from study.smoothness.hessian import LossHessian, curve, lanczos, mass, moment

STEPS = 20


def spectrum(n=120, seed=0):
    """A bulk around zero and three outliers."""
    generator = np.random.default_rng(seed)
    values = np.sort(np.concatenate([[9.0, 5.0, -2.0], generator.normal(scale=0.3, size=n - 3)]))
    vectors = np.linalg.qr(generator.normal(size=(n, n)))[0]
    return torch.from_numpy(vectors @ np.diag(values) @ vectors.T), values


def probes(n, count):
    return (2 * torch.randint(0, 2, (count, n), generator=gen(3)) - 1).double()


# --- density ----------------------------------------------------------------------------------------------------------


def test_moments_are_those_of_the_probes():
    matrix, _ = spectrum()
    starts = probes(120, 6)
    runs = [lanczos(lambda v: matrix @ v, start, STEPS) for start in starts]
    for power in (1, 2, 5):
        expected = [v @ np.linalg.matrix_power(matrix.numpy(), power) @ v / 120 for v in starts.numpy()]
        assert moment(runs, power).numpy() == pytest.approx(np.array(expected), rel=1e-9)


def test_masses_and_the_curve_are_the_spectrums_within_their_own_errors():
    matrix, values = spectrum()
    runs = [lanczos(lambda v: matrix @ v, start, STEPS) for start in probes(120, 60)]
    for above, up_to in ((-math.inf, -1.0), (-1.0, 1.0), (4.0, 10.0)):
        found = mass(runs, above, up_to)
        expected = ((values >= above) & (values < up_to)).mean()
        assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / math.sqrt(60) + 1e-9
    found = curve(runs, STEPS)
    points, density, stderr = (found[name].numpy() for name in ("eigenvalue", "density", "stderr"))
    assert np.trapezoid(density, points) == pytest.approx(1, abs=1e-3) and len(points) == 256
    width = np.ptp(np.concatenate([run.values.numpy() for run in runs])) / STEPS
    kernel = np.exp(-(((points[:, None] - values) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
    # within 4 standard errors, and quadrature's own error of twenty nodes
    assert (np.abs(density - kernel.mean(1)) < 4 * stderr + 2e-3 * kernel.mean(1).max()).all()
    assert stderr.max() < 0.1 * density.max()


def test_one_eigenvalue_for_all_has_a_curve_too():
    found = curve([lanczos(lambda v: 3 * v, v, 5) for v in probes(10, 1)], 5)
    assert float(torch.trapezoid(found["density"], found["eigenvalue"])) == pytest.approx(1, abs=1e-3)
    assert float(found["eigenvalue"][found["density"].argmax()]) == pytest.approx(3, abs=0.05)
    assert found["stderr"].isnan().all()


def test_the_statistic_keeps_its_curve():
    context = conv_context(conv_net(), images(20))
    found = run("hessian", context, split="test", num_steps=10)
    kept = context.kept["density"]
    assert set(kept) == {"eigenvalue", "density", "stderr"} and all(column.shape == (256,) for column in kept.values())
    assert float(torch.trapezoid(kept["density"], kept["eigenvalue"])) == pytest.approx(1, abs=1e-3)
    shares = found["hessian_negative_share"].value + found["hessian_zero_share"].value
    assert 0 < shares < 1 and float(kept["eigenvalue"][-1]) > found["hessian_top_eigenvalue"].value


# --- the Hessian against a public tool ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both():
    """Our operator and the public one on the same weights and batch."""
    model, x = conv_net().double().eval(), images(20).double()
    y = torch.arange(20) % 3
    ours = LossHessian(conv_context(model, x, y), x, y)
    theirs = public.HessianOperator(model, [(x, y)], public.supervised_loss(nn.functional.cross_entropy))
    return ours, theirs


def start_of(operator, seed):
    """The start vector that the public tool draws for ``seed``."""
    return 2 * torch.randint(0, 2, (operator.size,), generator=gen(seed)).to(operator.dtype) - 1


def test_top_eigenvalue_is_the_public_tools_with_no_more_products(both):
    ours, theirs = both
    start = start_of(theirs, 1)
    before, found = ours.num_products, lanczos(ours, start, 100, tolerance=1e-2)
    residual = float(found.residuals[-1])
    exact = public.lanczos(theirs, k=1, max_iter=100, which="LA", reorthogonalize=True, seed=2)
    assert float(found.values[-1]) == pytest.approx(float(exact.eigenvalues[0]), rel=0.01)
    # its Lanczos from the same vector needs as many products to a residual as small; its power iteration needs more
    for products in range(1, 101):
        made = public.lanczos_tridiagonal(theirs, start, products)
        matrix = torch.diag(made.alphas) + torch.diag(made.betas, 1) + torch.diag(made.betas, -1)
        vectors = torch.linalg.eigh(matrix).eigenvectors
        if made.last_beta * float(vectors[-1, -1].abs()) <= residual * (1 + 1e-6):
            break
    assert ours.num_products - before == found.num_products <= products
    *_, left, _, _ = public.power_iteration_one(theirs, max_iter=found.num_products, tol=0.0, init=start)
    assert left > residual


def test_trace_is_the_public_tools(both):
    ours, theirs = both
    exact, again = (
        sum(float(product(unit)[i]) for i, unit in enumerate(torch.eye(theirs.size).double()))
        for product in (ours, theirs.matvec)
    )
    assert exact == pytest.approx(again, rel=1e-9)
    samples = ours.num_params * moment([lanczos(ours, start_of(theirs, seed), 1) for seed in range(100)], 1)
    same = public.hutchinson(theirs, num_samples=1, seed=0)
    assert float(samples[0]) == pytest.approx(same.estimate, rel=0.01)
    assert abs(float(samples.mean()) - exact) < 3 * float(samples.std()) / 10


def test_density_is_the_public_tools(both):
    ours, theirs = both
    made = public.spectral_density(theirs, num_runs=5, lanczos_steps=STEPS, seed=7)
    runs = [lanczos(ours, start_of(theirs, 7 + number), STEPS) for number in range(5)]
    found = curve(runs, STEPS)
    expected = np.interp(found["eigenvalue"], made.grid, made.density)
    inside = (found["eigenvalue"] > made.grid[0]) & (found["eigenvalue"] < made.grid[-1])
    difference = (found["density"].numpy() - expected)[inside.numpy()]
    assert np.abs(difference).max() < 0.01 * float(made.density.max())


# --- the Jacobian against Hutchinson's estimator of its square ----------------------------------------------------------


def test_hutchinsons_stated_error_covers_the_exact_jacobian():
    """400 repetitions of 256 normal probes: E norm(J^T v)^2 is the squared norm; 95 % intervals hold it in 95 %."""
    net, x = conv_net().double().eval(), images(1).double()
    exact = run("input_jacobian", conv_context(net, x))["jacobian_logits_rms"].value ** 2
    repetitions, num_probes, inside = 400, 256, 0
    x.requires_grad_()
    z, generator = net(x), gen(4)
    for _ in range(40):  # ten repetitions at a time
        v = torch.randn(10 * num_probes, 1, 3, generator=generator, dtype=torch.float64)
        (pulled,) = torch.autograd.grad(z, x, v, is_grads_batched=True, retain_graph=True)
        samples = pulled.flatten(1).square().sum(1).view(10, num_probes)
        stderr = samples.std(1) / math.sqrt(num_probes)
        inside += int(((samples.mean(1) - exact).abs() <= 1.969 * stderr).sum())
    # 377 here; the two-sided binomial bound at 1 in 1,000, of which the samples' skewness takes a part
    assert inside >= binom.ppf(0.0005, repetitions, 0.95)
    assert inside <= binom.ppf(0.9995, repetitions, 0.95)
