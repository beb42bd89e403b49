"""Error rates of the verdict's rules, by an implementation of its own: it calls nothing of ``analysis``.

    python -m benchmarks.rules > benchmarks/results/rules.md

A claim is decided by p-values alone, with no interval: L > 0 at a level is p(centre 0) <= level with a mean above zero, and
U < margin is p(centre margin) <= level with a mean below it. Each p is that of a two-sided sign-flip test: all signs of up to
twelve pairs, 4,095 random ones and the identity beyond. Each rule is simulated where it can fail, and where there is one, the
rule that it replaced beside it. Takes some minutes on one core; every rate has a standard error of sqrt(r (1 - r) / studies).

Source: https://doi.org/10.1080/01621459.1969.10501057 (Hartigan 1969)
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

ALPHA = 0.05
LOOKS = (10, 16, 24)
_EXACT = 12
_RANDOM = 4095
_SEED = 1987
_AT_ONCE = 2**22

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Rate:
    """How often something happened in ``studies`` simulated studies, and what METHOD asks of it."""

    rule: str
    case: str
    share: float
    studies: int
    wanted: str = ""


def signs_of(n: int) -> Floats:
    """Sign patterns, one per row; row 0 is the identity. The first sign stays, for p is two-sided."""
    if n <= _EXACT:
        rest = np.array(list(itertools.product((1.0, -1.0), repeat=n - 1)))
        return np.concatenate([np.ones((len(rest), 1)), rest], axis=1)
    drawn = np.random.default_rng(_SEED).choice((1.0, -1.0), size=(_RANDOM, n))
    return np.concatenate([np.ones((1, n)), drawn])


def p_flip(d: Floats, centre: float = 0.0) -> Floats:
    """Two-sided p of "symmetric about ``centre``" of each row of ``d`` (studies, pairs)."""
    signs, shifted = signs_of(d.shape[1]), d - centre
    found = np.empty(len(d))
    step = max(1, _AT_ONCE // len(signs))
    for start in range(0, len(d), step):
        part = shifted[start : start + step]
        sums = np.abs(part @ signs.T)
        found[start : start + step] = (sums >= sums[:, :1] * (1 - 1e-9) - 1e-12).mean(axis=1)
    return found


def above(d: Floats, level: Floats | float, centre: float = 0.0) -> Flags:
    """Whether the interval at ``level`` lies above ``centre``."""
    return np.asarray((p_flip(d, centre) <= level) & (d.mean(axis=1) > centre))


def below(d: Floats, level: Floats | float, centre: float) -> Flags:
    """Whether the interval at ``level`` lies below ``centre``."""
    return np.asarray((p_flip(d, centre) <= level) & (d.mean(axis=1) < centre))


def levels_of(ps: Floats, alpha: float = ALPHA) -> Floats:
    """Holm's level of each of a study's claims: ``ps`` (studies, claims)."""
    num = ps.shape[1]
    order = np.argsort(ps, axis=1, kind="stable")
    levels = np.empty_like(ps)
    for study, places in enumerate(order):
        level, passed = alpha / num, True
        for i, place in enumerate(places):
            level = alpha / (num - i) if passed else level
            levels[study, place] = level
            passed = passed and ps[study, place] <= level
    return levels


def directed(d: Floats) -> Floats:
    """The two-sided p where the mean is above zero, else 1."""
    return np.where(d.mean(axis=1) > 0, p_flip(d), 1.0)


def normal(*shape: int, seed: int) -> Floats:
    """Standard normal draws."""
    return np.random.default_rng([_SEED, seed]).standard_normal(shape)


def levels_rule(studies: int, pairs: int) -> Iterator[Rate]:
    """Rule 1. Four claims of one comparison, all with an effect of exactly the margin: any refutation is false."""
    d = normal(studies * 4, pairs, seed=1) + 1.0
    ps = directed(d).reshape(studies, 4)
    p_margin = p_flip(d, 1.0).reshape(studies, 4)
    lower = d.mean(axis=1).reshape(studies, 4) < 1.0
    for name, levels, wanted in (("Holm's levels", levels_of(ps), ""), ("alpha / m", ALPHA / 4, "<= .05")):
        share = float(((p_margin <= levels) & lower).any(axis=1).mean())
        yield Rate(
            f"1 refutation at {name}", f"4 claims at the margin, n = {pairs}: any refuted", share, studies, wanted
        )


def composite_rule(studies: int, pairs: int) -> Iterator[Rate]:
    """Rule 2. Accuracy with failures: .97 +- .01, a collapsed network somewhere between .1 and .9."""
    g = np.random.default_rng([_SEED, 2])

    def arm(failing: float) -> Floats:
        fails = g.random((studies, pairs)) < failing
        return np.where(fails, g.uniform(0.1, 0.9, (studies, pairs)), g.normal(0.97, 0.01, (studies, pairs)))

    # of arms that fail alike it is true that the first is no better by the margin
    for ours, theirs, wanted in ((0.3, 0.3, ("<= .0125", "true")), (0.75, 0.0, ("<= .0125", "true"))):
        d = arm(ours) - arm(theirs)
        case = f"arm fails {ours:.0%}, reference {theirs:.0%}, no other difference, n = {pairs}"
        yield Rate("2 failures counted", f"{case}: supported", float(above(d, ALPHA / 4).mean()), studies, wanted[0])
        yield Rate(
            "2 failures counted", f"{case}: refuted", float(below(d, ALPHA / 4, 0.01).mean()), studies, wanted[1]
        )


def scales_rule(studies: int, pairs: int) -> Iterator[Rate]:
    """Rule 3. No effect on three scales whose differences correlate by .5: how often the others bar support."""
    shared, own = normal(studies, pairs, 1, seed=3), normal(studies, pairs, 3, seed=4)
    d = np.sqrt(0.5) * shared + np.sqrt(0.5) * own
    signs = np.sign(d.mean(axis=1))
    bare = (signs[:, 1:] != signs[:, :1]).any(axis=1)
    yield Rate("3 bare sign of two scales bars", f"no effect, n = {pairs}", float(bare.mean()), studies)
    surely = np.zeros(studies, dtype=bool)
    for other in (1, 2):
        turned = d[:, :, other] * -signs[:, :1]
        surely |= above(turned, ALPHA)
    yield Rate("3 own interval of a scale bars", f"no effect, n = {pairs}", float(surely.mean()), studies, "<= .05")


def family_rule(studies: int, pairs: int, num_arms: int) -> Iterator[Rate]:
    """Rule 4. A family in one of four claims: no arm has an effect (support), one has the margin (refutation)."""
    level, refute = ALPHA / 4 / num_arms, ALPHA / 4
    shared, own = normal(studies, pairs, 1, seed=5), normal(studies, pairs, num_arms, seed=6)
    d = np.sqrt(0.5) * (shared + own)
    supported = np.zeros(studies, dtype=bool)
    for arm in range(num_arms):
        supported |= above(d[:, :, arm], level)
    case = f"{num_arms} arms against one reference, n = {pairs}"
    yield Rate("4 family, no effect", f"{case}: supported", float(supported.mean()), studies, "<= .0125")
    refuted = np.ones(studies, dtype=bool)
    for arm in range(num_arms):
        refuted &= below(d[:, :, arm] + (1.0 if arm == 0 else 0.0), refute, 1.0)
    yield Rate("4 family, one arm at the margin", f"{case}: refuted", float(refuted.mean()), studies, "<= .0125")


def control_rule(studies: int, pairs: int) -> Iterator[Rate]:
    """Rule 5. The A/A control at a margin of 1: the same thing twice, and an alias that collapses nine times in ten."""

    def states(d: Floats) -> tuple[float, float]:
        differs = (p_flip(d) <= 0.05) & (np.abs(d.mean(axis=1)) >= 1.0)
        within = above(d, 0.10, -1.0) & below(d, 0.10, 1.0) & ~differs
        return float(differs.mean()), float(within.mean())

    for spread, wanted in ((0.5, ("<= .05", "near 1")), (2.0, ("<= .05", ""))):
        differs, inside = states(spread * normal(studies, pairs, seed=7))
        case = f"the same twice, spread {spread:g} margins, n = {pairs}"
        yield Rate("5 A/A control", f"{case}: differs", differs, studies, wanted[0])
        yield Rate("5 A/A control", f"{case}: inside", inside, studies, wanted[1])
    fails = np.random.default_rng([_SEED, 8]).random((studies, pairs)) < 0.9
    differs, _ = states(np.where(fails, -60.0, 0.0) + 0.5 * normal(studies, pairs, seed=9))
    yield Rate("5 A/A control", f"alias collapses 9 times of 10, n = {pairs}: differs", differs, studies, "near 1")


def strata_rule(studies: int, pairs: int) -> Iterator[Rate]:
    """Rule 6. Two strata with +4 and -2 spreads of effect; and with the same effect, where the rule should be free."""
    for effects, wanted in (((4.0, -2.0), "near 0"), ((1.5, 1.5), "")):
        d = normal(studies, pairs, 2, seed=10) + np.array(effects)
        pooled = above(d.mean(axis=2), ALPHA / 4)
        barred = below(d[:, :, 0], ALPHA, 0.0) | below(d[:, :, 1], ALPHA, 0.0)
        case = f"effects {effects[0]:+g} and {effects[1]:+g}, n = {pairs}"
        yield Rate("6 pooled support alone", case, float(pooled.mean()), studies)
        yield Rate("6 unless a stratum lies below zero", case, float((pooled & ~barred).mean()), studies, wanted)


def study_rule(studies: int, looks: tuple[int, ...], kind: str) -> Iterator[Rate]:
    """Any false verdict on four claims: of no effect (support is false), of the margin (refutation is), or both halves.

    In one look by Holm and alpha / m; over looks by alpha / m, spent by Lan and DeMets and split by Bonferroni among the
    increments of the looks, which is stricter than the joint boundary in use.
    """
    num, last = 4, looks[-1]
    effects = {"no effect": [0.0] * 4, "the margin": [1.0] * 4, "two of each": [0.0, 0.0, 1.0, 1.0]}[kind]
    d = normal(studies, num, last, seed=11) + np.array(effects)[:, None]
    false = np.zeros(studies, dtype=bool)
    spent = 0.0
    for look in looks:
        by_now = ALPHA / num * np.log(1 + (np.e - 1) * look / last)
        there = d[:, :, :look].reshape(studies * num, look)
        p0, p1 = p_flip(there).reshape(studies, num), p_flip(there, 1.0).reshape(studies, num)
        mean = there.mean(axis=1).reshape(studies, num)
        fixed = by_now - spent if len(looks) > 1 else ALPHA / num
        spent = by_now
        level = fixed if len(looks) > 1 else levels_of(np.where(mean > 0, p0, 1.0))
        refuted = (p1 <= fixed) & (mean < 1.0)
        supported = (p0 <= level) & (mean > 0) & ~refuted
        null = np.array(effects) == 0.0
        false |= (supported & null).any(axis=1) | (refuted & ~null).any(axis=1)
    case = f"four claims of {kind}, {'looks ' if len(looks) > 1 else 'n = '}{', '.join(map(str, looks))}"
    yield Rate("all: any false verdict", case, float(false.mean()), studies, "<= .05")


def all_rates(studies: int) -> Iterator[Rate]:
    """Every rule, one rate after another."""
    parts: list[Callable[[], Iterator[Rate]]] = [
        *(lambda n=n: levels_rule(studies, n) for n in (10, 24)),  # type: ignore[misc]
        lambda: composite_rule(studies, 10),
        lambda: scales_rule(studies, 10),
        *(lambda a=a: family_rule(studies, 12, a) for a in (3, 6)),  # type: ignore[misc]
        lambda: control_rule(studies, 10),
        lambda: strata_rule(studies, 10),
        *(
            lambda looks=looks, kind=kind: study_rule(studies, looks, kind)  # type: ignore[misc]
            for kind in ("no effect", "the margin", "two of each")
            for looks in ((10,), LOOKS)
        ),
    ]
    for part in parts:
        yield from part()


def main() -> None:
    """Print the table as Markdown."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print("# Error rates of the verdict's rules\n")
    print(
        f"Made by `python -m benchmarks.rules`: {studies:,} simulated studies a number, by code that shares nothing with "
        "`analysis`. Differences are normal with a spread of one margin unless said.\n"
    )
    rows = [(r.rule, r.case, f"{r.share:.3f}", r.wanted) for r in all_rates(studies)]
    print(tabulate(rows, ["Rule", "Case", "Share", "Wanted"], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
