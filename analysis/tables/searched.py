"""The search phase by cell and block: what each trial was given and what validation accuracy it reached."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from analysis.inputs import Inputs
from analysis.trials.grid import Flags, Floats
from analysis.trials.table import setting_column
from analysis.words.rows import grouped


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
