"""https://www.jstor.org/stable/4615733 -- Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.

A claim that must hold against several references or in several outcomes is an intersection-union test
(https://doi.org/10.1080/00401706.1982.10487790, Berger): its p-value is the largest of its parts, unadjusted. Holm's
procedure then runs over the claims.
"""

from collections.abc import Mapping, Sequence

import numpy as np


def directed_p(p_two_sided: float, mean_difference: float, better: str) -> float:
    """The two-sided p if the difference points where the claim says (``better`` is "higher" or "lower"), else 1."""
    agrees = mean_difference > 0 if better == "higher" else mean_difference < 0
    return p_two_sided if agrees else 1.0


def holm(parts: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
    """Claim -> Holm-adjusted p over all claims, from the directed p-values of each claim's parts.

    A claim with a part that cannot be tested (``None``, or no parts) gets ``None`` and stays in the family with p = 1,
    so that leaving a claim untested makes no other claim easier.
    """
    if not parts:
        return {}
    largest = {
        name: None if not ps or None in ps else max(p for p in ps if p is not None) for name, ps in parts.items()
    }
    adjusted = _adjusted([1.0 if p is None else p for p in largest.values()])
    return {name: None if p is None else float(q) for (name, p), q in zip(largest.items(), adjusted, strict=True)}


def _adjusted(ps: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values. statsmodels' ``multipletests`` collects garbage at each call: a second where much is held."""
    order = np.argsort(ps, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(ps)[order] * np.arange(len(ps), 0, -1))
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in adjusted]


def holm_levels(parts: Mapping[str, Sequence[float | None]], alpha: float) -> dict[str, float]:
    """Claim -> the level Holm's procedure tests it at: its interval's lower limit is above zero just where it is rejected.

    Claims are taken in order of their p: alpha / m for the first of m, alpha / (m - 1) for the next, and so on while each
    is rejected; from the first that is not, the level stays.
    """
    largest = {name: 1.0 if not ps or None in ps else max(p for p in ps if p is not None) for name, ps in parts.items()}
    levels: dict[str, float] = {}
    level, passed = alpha, True
    for rank, name in enumerate(sorted(largest, key=lambda name: largest[name])):
        if passed:
            level = alpha / (len(largest) - rank)
        levels[name] = level
        passed = passed and largest[name] <= level
    return levels
