"""How often the intervals hold, also where they need not.

    python -m benchmarks.coverage > benchmarks/results/coverage.md

Sign-flip intervals assume differences symmetric about their centre. Here they are drawn from symmetric, heavy-tailed and
skewed families, each centred at a mean of zero, and it is counted how often the interval holds that mean: the sign-flip
interval, Student's t interval beside it, and the repeated intervals of all looks together. Then how often any of four claims
without an effect is found to have one in its direction, at Holm's levels after ten pairs and over all looks.

Takes about half a minute on one core. Every number is a share of ``NUM_STUDIES`` simulated studies; its standard error is
sqrt(p (1 - p) / NUM_STUDIES), .002 near .95.

Source: https://doi.org/10.1080/01621459.1969.10501057 (Hartigan 1969)
"""

import math
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate

from analysis.stats.sequential import first_rejections

NUM_STUDIES = 10_000
LOOKS = (10, 16, 24)
ALPHA = 0.05
NUM_CLAIMS = 4
# 2^10 patterns a study: the first look is exact, the later ones are sampled (the level holds all the same).
_EXACT = 11
_SEED = 6

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]

# Name -> kind, and draws with mean (or centre) zero.
FAMILIES: dict[str, tuple[str, Draw]] = {
    "normal": ("symmetric", lambda g, shape: g.standard_normal(shape)),
    "uniform": ("symmetric", lambda g, shape: g.uniform(-1, 1, shape)),
    "Laplace": ("symmetric", lambda g, shape: g.laplace(0, 1, shape)),
    "normal, 1 in 4 twins exactly equal": (
        "symmetric, ties",
        lambda g, shape: g.standard_normal(shape) * (g.random(shape) > 0.25),
    ),
    "Student t, 3 degrees": ("heavy-tailed", lambda g, shape: g.standard_t(3, shape)),
    "Cauchy (centre 0)": ("heavy-tailed", lambda g, shape: g.standard_cauchy(shape)),
    "difference of two gammas, shapes 2 and 4": (
        "skewed",
        lambda g, shape: g.gamma(2, 1, shape) - g.gamma(4, 0.5, shape),
    ),
    "exponential": ("skewed", lambda g, shape: g.exponential(1, shape) - 1),
    "lognormal, sigma 1": ("skewed", lambda g, shape: g.lognormal(0, 1, shape) - math.exp(0.5)),
    "collapse: -10 in 1 of 20, else normal": (
        "skewed",
        lambda g, shape: np.where(g.random(shape) < 0.05, -10.0, g.standard_normal(shape)) + 0.5,
    ),
}


def sign_flip_coverage(d: Floats, alpha: float = ALPHA) -> float:
    """Share of studies, a row each, whose sign-flip interval at 1 - ``alpha`` holds zero."""
    return float(np.mean(first_rejections(d, [d.shape[1]], alpha, exact=_EXACT) == 1))


def t_coverage(d: Floats, alpha: float = ALPHA) -> float:
    """The same of Student's t interval."""
    n = d.shape[1]
    half = stats.t.ppf(1 - alpha / 2, n - 1) * d.std(axis=1, ddof=1) / math.sqrt(n)
    return float(np.mean(np.abs(d.mean(axis=1)) <= half))


def repeated_coverage(d: Floats, alpha: float = ALPHA) -> float:
    """Share of studies in which the repeated intervals of all looks hold zero."""
    return float(np.mean(first_rejections(d, LOOKS, alpha, exact=_EXACT) == len(LOOKS)))


def false_support(draw: Draw, generator: np.random.Generator, looks: tuple[int, ...], direction: int = 1) -> float:
    """Share of studies in which any of four independent claims without an effect has L > 0.

    That is needed for ``supported``, so it bounds every false verdict of support. In one look Holm's first step is at alpha /
    4, and a study without that step rejects nothing; over several looks each claim has alpha / 4 (Bonferroni).
    """
    d = direction * draw(generator, (NUM_STUDIES * NUM_CLAIMS, looks[-1]))
    found = first_rejections(d, looks, ALPHA / NUM_CLAIMS, exact=_EXACT)
    sums = np.stack([d[:, :n].sum(axis=1) for n in looks] + [np.zeros(len(d))])
    upward = sums[found, np.arange(len(d))] > 0
    return float(np.mean(upward.reshape(NUM_STUDIES, NUM_CLAIMS).any(axis=1)))


def row(name: str) -> list[str]:
    """One family: coverages, and false support in whichever direction has more of it."""
    kind, draw = FAMILIES[name]
    generator = np.random.Generator(np.random.PCG64([_SEED, *name.encode()]))
    cells = []
    for n in (8, 10, 24):
        d = draw(generator, (NUM_STUDIES, n))
        cells += [f"{sign_flip_coverage(d):.3f}", f"{t_coverage(d):.3f}"]
    cells.append(f"{repeated_coverage(draw(generator, (NUM_STUDIES, LOOKS[-1]))):.3f}")
    for looks in ((10,), LOOKS):
        cells.append(f"{max(false_support(draw, generator, looks, side) for side in (1, -1)):.3f}")
    return [name, kind, *cells]


def main() -> None:
    """Print the table as Markdown."""
    headings = ["Differences", "Kind"]
    headings += [f"{test}, {n} pairs" for n in (8, 10, 24) for test in ("sign-flip", "t")]
    looks = ", ".join(map(str, LOOKS))
    headings += ["repeated, all looks", "false support, 10 pairs", f"false support, looks {looks}"]
    rows = []
    for name in FAMILIES:
        rows.append(row(name))
        print(name, file=sys.stderr)
    print("# How often intervals hold\n")
    print(
        f"Made by `python -m benchmarks.coverage`: {NUM_STUDIES:,} simulated studies a number, so that its standard error is "
        ".002 near .95 and near .05, .005 at most. Coverage is that of .95 intervals of the mean (of the centre, where "
        f"there is no mean). False support: of {NUM_CLAIMS} independent claims, all with a mean of zero, any has its lower "
        f"limit above zero, at a total level of {ALPHA:g}, in the direction that has more of it.\n\n"
        "Two arms of one distribution have symmetric differences, however skewed each is by itself: where a merge operator "
        "changes nothing, the level holds. The skewed rows are arms that differ in shape and not in mean; there neither test "
        "keeps its level. That is why every pair is a dot in the figures, and why each comparison of a claim shows its "
        "skewness and a test of it. Error rates of the verdict's rules: `python -m benchmarks.rules`.\n"
    )
    print(tabulate(rows, headings, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
