"""The best validation accuracy to expect of n search trials, from the empirical distribution of those that were run.

Which operator looks best depends on the budget; the curves show for which budgets. The formula treats trials as random draws.
After the start-up points the sampler proposes trials from earlier ones, so a curve flatters a budget in which the sampler
would have known less.
Source: https://arxiv.org/abs/1909.03004
"""

import numpy as np
from numpy.typing import ArrayLike

from analysis.inputs import Inputs
from analysis.stats.spread import mean, sd
from analysis.tables.searched import by_cell, search_counts
from analysis.trials.grid import Floats
from analysis.words.columns import FRACTION, count, number, shared
from analysis.words.rows import Rows
from study.registry import TABLES


def expected_best(values: ArrayLike) -> Floats:
    """Expected maximum of n draws with replacement from ``values`` (N,), for n = 1 ... N: shape (N,), same unit.

    Exact: with v sorted, the sum over i of v_i ((i/N)^n - ((i-1)/N)^n).
    """
    v = np.sort(np.asarray(values, dtype=np.float64))
    below = np.arange(len(v) + 1) / max(len(v), 1)
    powers = below[None, :] ** np.arange(1, len(v) + 1)[:, None]
    return np.asarray(np.diff(powers, axis=1) @ v)


def best_of_n_rows(inputs: Inputs) -> Rows:
    """One row per cell and n, from 1 to the most trials that one of its blocks ran."""
    rows = []
    for cell, blocks in by_cell(inputs).items():
        curves = [expected_best(searched.accuracy) for searched in blocks]
        counts = search_counts(blocks)
        for n in range(1, max(map(len, curves)) + 1):
            reached = np.array([curve[n - 1] for curve in curves if len(curve) >= n])
            known = {"n": n, "n_blocks": len(reached), "mean": mean(reached), "sd": sd(reached)}
            rows.append(
                inputs.heads[cell] | counts | known | {"lowest": float(reached.min()), "highest": float(reached.max())}
            )
    return rows


@TABLES.register(
    "best_of_n",
    formula="expected validation accuracy of the best of n search trials, over blocks; n in powers of two, and all",
    source="https://arxiv.org/abs/1909.03004",
    title="Expected best of n trials",
    place=4.7,
    columns=(
        *shared("study cell dataset arm depth"),
        count("n", "Trials"),
        *shared("n_blocks n_trials n_diverged"),
        number("mean", FRACTION, "Expected best", "percent"),
        number("sd", FRACTION, "Spread", "percent"),
        number("lowest", FRACTION, "Lowest", "percent"),
        number("highest", FRACTION, "Highest", "percent"),
    ),
    main="cell n n_blocks mean sd lowest highest n_diverged",
    row="one cell and number of search trials n; mean, spread and extremes over blocks with n trials or more",
)
def shown_rows(inputs: Inputs) -> Rows:
    """One row per cell and n of the table; the figure has every n. Diverged trials count at chance, and are counted."""
    rows = best_of_n_rows(inputs)
    last = {row["cell"]: row["n"] for row in rows}
    return [row for row in rows if row["n"] & (row["n"] - 1) == 0 or row["n"] == last[row["cell"]]]
