"""https://doi.org/10.1080/01621459.1969.10501057 (Hartigan): contrasts of several cells within a replicate, and their test.

Interactions, trends and dose-responses are one weighted sum of a replicate's values; its sign-flip test and interval are
those of a difference. The replicate stays the unit: one that lacks a value in any cell concerned is left out and counted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.effects.compare import COLLAPSED, COMPLETED, DIVERGED
from analysis.stats.signflip import sign_flip_interval, sign_flip_p
from analysis.trials.grid import NO_RECORD, ConfirmGrid, Flags, Floats
from analysis.trials.outcomes import ReadOutcome
from search_spaces.spec import Spec

# A sum smaller than this share of its largest term is rounding: equal values sum to exactly zero.
_ROUNDING = 1e-12
TESTED = ("n_pairs", "estimate", "sd", "ci_low", "ci_high", "p_sign_flip")


def cell_values(grid: ConfirmGrid, outcome: ReadOutcome, cells: Sequence[int]) -> Floats:
    """One row a cell, one column a pair: the value on the outcome's scale of a completed network; NaN for any other.

    Estimates that did not converge, and values without a logarithm where one is compared, are NaN too.
    """
    cells = list(cells)
    values = grid.floats(outcome.name, cells)
    if outcome.scale == "log ratio":
        values = np.log(np.where(values > 0, values, np.nan))
    good = grid.states(cells) == COMPLETED
    good &= grid.flags(f"{outcome.name}_converged", cells, missing=True)
    return np.where(good & np.isfinite(values), values, np.nan)


def same_budgets(grid: ConfirmGrid, cells: Sequence[int], *, epochs: bool = True) -> Flags:
    """Pairs in which all ``cells`` searched as many trials and, unless ``epochs`` may differ, trained as long."""
    cells = list(cells)
    same = (grid.budgets[cells] == grid.budgets[cells[:1]]).all(axis=0)
    if epochs:
        trained = np.where(grid.states(cells) == COMPLETED, grid.floats("epochs", cells), np.nan)
        same &= ~(np.fmax.reduce(trained) > np.fmin.reduce(trained))
    return np.asarray(same, dtype=np.bool_)


def weighted_sum(values: Floats, weights: Floats) -> Floats:
    """Sum over rows of ``weights`` (one a row) times ``values``, zero where it is but rounding; NaN stays."""
    terms = values * weights[:, None]
    total = terms.sum(axis=0)
    total[np.abs(total) <= _ROUNDING * np.abs(terms).max(axis=0, initial=0.0)] = 0.0
    return np.asarray(total)


def slope_weights(x: Sequence[float]) -> Floats:
    """Weights under which a row sum is the least-squares slope over ``x``, which must hold two different values."""
    centred = np.asarray(x, dtype=np.float64) - np.mean(x)
    return np.asarray(centred / np.square(centred).sum())


def tested(values: Floats, alpha: float) -> dict[str, Any]:
    """Mean, spread, interval (inverted sign-flip test at ``alpha``) and p of the finite ones among a replicate's sums."""
    d = values[np.isfinite(values)]
    row: dict[str, Any] = dict.fromkeys(TESTED)
    row["n_pairs"] = len(d)
    if len(d):
        row["estimate"], row["p_sign_flip"] = float(d.mean()), sign_flip_p(d)
        row["ci_low"], row["ci_high"] = sign_flip_interval(d, alpha)
        row["sd"] = float(d.std(ddof=1)) if len(d) > 1 else None
    return row


def left_out(grid: ConfirmGrid, cells: Sequence[int], num_pairs: int) -> dict[str, int]:
    """``n_excluded``: pairs begun in any of ``cells`` less those used; ``n_failures``: networks collapsed or diverged."""
    states = grid.states(list(cells))
    begun = int(np.count_nonzero((states != NO_RECORD).any(axis=0)))
    return {
        "n_excluded": begun - num_pairs,
        "n_failures": int(np.isin(states, (COLLAPSED, DIVERGED)).sum()),
    }


def exploratory(spec: Spec) -> str:
    """The label of everything that is no primary contrast."""
    return "; ".join(
        ["exploratory"]
        + (["at these hyperparameters"] if spec.blocks == 1 else [])
        + (["demonstration"] if spec.demonstration else [])
    )
