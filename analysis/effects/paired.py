"""Contrasts of several cells within a replicate, and their test.

Interactions, trends and dose-responses are one weighted sum of a replicate's values; its sign-flip test and interval are
those of a difference. The replicate stays the unit: one that lacks a value in any cell concerned is left out and counted.
Source: https://doi.org/10.1080/01621459.1969.10501057 (Hartigan 1969)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats.spread import p_value, spread
from analysis.trials.grid import COLLAPSED, DIVERGED, NO_RECORD, ConfirmGrid, Floats
from analysis.trials.outcomes import ReadOutcome
from search_spaces.spec import Spec

# A sum smaller than this share of its largest term is rounding: equal values sum to exactly zero.
_ROUNDING = 1e-12


def cell_values(grid: ConfirmGrid, outcome: ReadOutcome, cells: Sequence[int]) -> Floats:
    """One row per cell, one column per pair: the value on the outcome's scale of a network that counts; NaN for any other.

    Estimates that did not converge, and values without a logarithm where one is compared, are NaN too.
    """
    values = grid.values(outcome, list(cells))
    return np.where(grid.counted(outcome, list(cells)) & np.isfinite(values), values, np.nan)


def weighted_sum(values: Floats, weights: Floats) -> Floats:
    """Sum over rows of ``weights`` (one per row) times ``values``, zero where it is but rounding; NaN stays."""
    terms = values * weights[:, None]
    total = terms.sum(axis=0)
    total[np.abs(total) <= _ROUNDING * np.abs(terms).max(axis=0, initial=0.0)] = 0.0
    return np.asarray(total)


def slope_weights(x: ArrayLike) -> Floats:
    """Weights under which a row sum is the least-squares slope over ``x``, which must hold two different values."""
    at = np.asarray(x, dtype=np.float64)
    centred = at - at.mean()
    return np.asarray(centred / np.square(centred).sum())


def tested(values: Floats, alpha: float) -> dict[str, Any]:
    """The columns of a test of the finite ones among ``values``, one per replicate; interval at 1 - ``alpha``."""
    d = values[np.isfinite(values)]
    found = spread(d, alpha)
    return {"n_pairs": len(d), "estimate": found.pop("mean"), **found, "p_sign_flip": p_value(d)}


def left_out(grid: ConfirmGrid, cells: Sequence[int], num_pairs: int) -> dict[str, int]:
    """``n_excluded``: pairs begun in any of ``cells`` less those used; ``n_failures``: networks collapsed or diverged."""
    states = grid.states(list(cells))
    begun = int(np.count_nonzero((states != NO_RECORD).any(axis=0)))
    return {"n_excluded": begun - num_pairs, "n_failures": int(np.isin(states, (COLLAPSED, DIVERGED)).sum())}


def exploratory(spec: Spec) -> str:
    """The label of everything that is no primary contrast."""
    return "; ".join(
        ["exploratory"]
        + (["at these hyperparameters"] if spec.blocks == 1 else [])
        + (["demonstration"] if spec.demonstration else [])
    )
