"""The search phase by cell and block, and the best validation accuracy to expect of n search trials.

Which operator looks best depends on the budget; the curves show for which budgets. The expectation is over the empirical
distribution of the trials that were run, treated as random draws. After the start-up points the sampler proposes trials from
earlier ones, so a curve flatters a budget in which the sampler would have known less.
Source: https://arxiv.org/abs/1909.03004
"""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from analysis.inputs import Inputs
from analysis.stats.spread import mean, sd
from analysis.trials.grid import Flags, Floats
from analysis.trials.table import setting_column
from analysis.words.columns import count, number, shared
from analysis.words.rows import Rows, grouped
from study.registry import TABLES
from study.schema import FRACTION


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One cell's search in one block, its trials in order of number.

    ``accuracy`` is of the last epoch run (fraction of images), guessing's for a trial that diverged; ``startup`` says which
    trials are the Sobol points that all cells share. Trials that ended in a fault of the machine are left out.
    """

    accuracy: Floats
    startup: Flags
    settings: dict[str, Floats]
    diverged: Flags


def by_cell(inputs: Inputs, hyperparameters: tuple[str, ...] = ()) -> dict[str, list[Searched]]:
    """Cell -> its searches, one per block, in the order of the study; empty where a joint search mixes cells.

    ``hyperparameters`` name numeric nuisance values to hand over.
    """
    spec, trials = inputs.spec, inputs.trials
    found: dict[str, list[Searched]] = {}
    if spec.joint:
        return found
    asked = pc.and_(pc.less(trials["number"], spec.budget.search_trials), pc.less(trials["search_block"], spec.blocks))
    ran = pc.and_(pc.equal(trials["phase"], "search"), pc.not_equal(trials["state"], "failed"))
    columns = {name: setting_column(name) for name in hyperparameters}
    names = ["cell", "search_block", "number", "dataset", "state", "val/accuracy", *columns.values()]
    held = trials.filter(pc.and_(asked, ran)).select(names).to_pylist()
    for (cell, _), rows in grouped(held, "cell", "search_block").items():
        guess = inputs.chance.get(rows[0]["dataset"], 0.0)
        reached = [guess if row["state"] == "diverged" else row["val/accuracy"] for row in rows]
        searched = Searched(
            accuracy=np.array([guess if value is None else value for value in reached]),
            startup=np.array([row["number"] < spec.budget.startup_trials for row in rows]),
            settings={n: np.array([row[c] for row in rows], dtype=np.float64) for n, c in columns.items()},
            diverged=np.array([row["state"] == "diverged" for row in rows]),
        )
        found.setdefault(cell, []).append(searched)
    return found


def search_counts(blocks: list[Searched]) -> dict[str, int]:
    """Blocks, trials and diverged trials of a cell."""
    num_diverged = sum(int(block.diverged.sum()) for block in blocks)
    return {"n_blocks": len(blocks), "n_trials": sum(len(b.accuracy) for b in blocks), "n_diverged": num_diverged}


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
        count("n", "Trials", meaning="search trials of which the best is taken"),
        *shared("n_blocks n_trials n_diverged"),
        number(
            "mean",
            FRACTION,
            "Expected best",
            "percent",
            meaning="expected validation accuracy of the best of n trials, over blocks",
        ),
        number("sd", FRACTION, "Spread", "percent", meaning="standard deviation of it over blocks"),
        number("lowest", FRACTION, "Lowest", "percent", meaning="the block in which it is lowest"),
        number("highest", FRACTION, "Highest", "percent", meaning="the block in which it is highest"),
    ),
    main="cell n n_blocks mean sd lowest highest n_diverged",
    row="one cell and number of search trials n; mean, spread and extremes over blocks with n trials or more",
)
def shown_rows(inputs: Inputs) -> Rows:
    """One row per cell and n of the table; the figure has every n. Diverged trials count at chance, and are counted."""
    rows = best_of_n_rows(inputs)
    last = {row["cell"]: row["n"] for row in rows}
    return [row for row in rows if row["n"] & (row["n"] - 1) == 0 or row["n"] == last[row["cell"]]]
