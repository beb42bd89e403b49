"""Holm's procedure over the claims of a study.

A claim that must hold against several references or in several outcomes is an intersection-union test (Berger 1982): its
p-value is the largest of its parts, unadjusted. A family of A arms, of which any one may hold, has A times the smallest p of
its arms (Bonferroni). Holm's procedure then runs over the claims. A claim that cannot be tested (``None``) stays in the family
with p = 1, so that leaving a claim untested makes no other claim easier.
Source: https://www.jstor.org/stable/4615733 (Holm 1979), https://doi.org/10.1080/00401706.1982.10487790 (Berger 1982)
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Ps = Mapping[str, float | None]


def directed_p(p_two_sided: float, mean_difference: float, better: str) -> float:
    """The two-sided p if the difference points where the claim says (``better`` is "higher" or "lower"), else 1."""
    agrees = mean_difference > 0 if better == "higher" else mean_difference < 0
    return p_two_sided if agrees else 1.0


def padded(found: Iterable[T | None], num: int) -> list[T | None]:
    """``found``, with ``None`` for each of the ``num`` comparisons that is not there: what is missing stays in the claim."""
    there = list(found)
    return [*there, *[None] * (num - len(there))]


def claim_p(arms: Sequence[Sequence[float | None]]) -> float | None:
    """The p of a claim from the directed ones of each arm's parts, at most 1.

    An arm has the largest p of its parts; one with a part that cannot be tested (``None``), or without parts, has none. A
    family has the smallest p of its arms, times how many they are. ``None`` where no arm has one.
    """
    found = [max(p for p in parts if p is not None) for parts in arms if parts and None not in parts]
    return min(1.0, len(arms) * min(found)) if found else None


def holm(claims: Ps) -> dict[str, float | None]:
    """Claim -> Holm-adjusted p over all claims; ``None`` if untested."""
    ps = np.array([1.0 if p is None else p for p in claims.values()])
    # statsmodels' multipletests would do, but it collects garbage at each call: a second where much is held
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1)), 1.0)
    return {name: None if p is None else float(q) for (name, p), q in zip(claims.items(), adjusted, strict=True)}


def holm_levels(claims: Ps, alpha: float) -> dict[str, float]:
    """Claim -> the level Holm's procedure tests it at: its interval's lower limit is above zero just where it is rejected.

    Claims are taken in order of their p: alpha / m for the first of m, alpha / (m - 1) for the next, and so on while each
    is rejected; from the first that is not, the level stays.
    """
    ps = {name: 1.0 if p is None else p for name, p in claims.items()}
    levels: dict[str, float] = {}
    level, passed = alpha, True
    for i, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        if passed:
            level = alpha / (len(ps) - i)
        levels[name] = level
        passed = passed and ps[name] <= level
    return levels
