"""Holm's procedure over the claims of a study.

A claim that must hold against several references or in several outcomes is an intersection-union test (Berger 1982): its
p-value is the largest of its parts, unadjusted. Holm's procedure then runs over the claims. A claim with a part that cannot be
tested (``None``, or no parts) stays in the family with p = 1, so that leaving a claim untested makes no other claim easier.
Source: https://www.jstor.org/stable/4615733 (Holm 1979), https://doi.org/10.1080/00401706.1982.10487790 (Berger 1982)
"""

from collections.abc import Mapping, Sequence

import numpy as np

Parts = Mapping[str, Sequence[float | None]]


def directed_p(p_two_sided: float, mean_difference: float, better: str) -> float:
    """The two-sided p if the difference points where the claim says (``better`` is "higher" or "lower"), else 1."""
    agrees = mean_difference > 0 if better == "higher" else mean_difference < 0
    return p_two_sided if agrees else 1.0


def holm(parts: Parts) -> dict[str, float | None]:
    """Claim -> Holm-adjusted p over all claims, from the directed p-values of each claim's parts; ``None`` if untested."""
    largest = _largest(parts)
    ps = np.array([1.0 if p is None else p for p in largest.values()])
    # statsmodels' multipletests would do, but it collects garbage at each call: a second where much is held
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1)), 1.0)
    return {name: None if p is None else float(q) for (name, p), q in zip(largest.items(), adjusted, strict=True)}


def holm_levels(parts: Parts, alpha: float) -> dict[str, float]:
    """Claim -> the level Holm's procedure tests it at: its interval's lower limit is above zero just where it is rejected.

    Claims are taken in order of their p: alpha / m for the first of m, alpha / (m - 1) for the next, and so on while each
    is rejected; from the first that is not, the level stays.
    """
    largest = {name: 1.0 if p is None else p for name, p in _largest(parts).items()}
    levels: dict[str, float] = {}
    level, passed = alpha, True
    for i, name in enumerate(sorted(largest, key=lambda name: largest[name])):
        if passed:
            level = alpha / (len(largest) - i)
        levels[name] = level
        passed = passed and largest[name] <= level
    return levels


def _largest(parts: Parts) -> dict[str, float | None]:
    """Claim -> the largest p of its parts; ``None`` if one cannot be tested."""
    tested = {name: [p for p in ps if p is not None] for name, ps in parts.items()}
    return {name: max(tested[name]) if ps and len(tested[name]) == len(ps) else None for name, ps in parts.items()}
