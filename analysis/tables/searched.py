"""The search phase by cell and block: what each trial was given and what validation accuracy it reached."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from analysis.inputs import Inputs
from analysis.trials.grid import Flags, Floats
from analysis.trials.table import setting_column


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One cell's search in one block, its trials in order of number.

    ``accuracy`` is of the last epoch run (fraction of images), guessing's for a trial that diverged; ``startup`` says which
    trials are the Sobol points that all cells share. Trials that ended in a fault of the machine are left out.
    """

    cell: str
    block: int
    accuracy: Floats
    startup: Flags
    settings: dict[str, Floats]
    diverged: Flags


def searches(inputs: Inputs, hyperparameters: tuple[str, ...] = ()) -> Iterator[Searched]:
    """Every cell and block with a trial, in the order of the study; none where a joint search mixes cells.

    ``hyperparameters`` name numeric nuisance values to hand over.
    """
    spec, trials = inputs.spec, inputs.trials
    if spec.joint:
        return
    asked = pc.and_(pc.less(trials["number"], spec.budget.search_trials), pc.less(trials["search_block"], spec.blocks))
    ran = pc.and_(pc.equal(trials["phase"], "search"), pc.not_equal(trials["state"], "failed"))
    columns = {name: setting_column(name) for name in hyperparameters}
    names = ["cell", "search_block", "number", "dataset", "state", "val/accuracy", *columns.values()]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in trials.filter(pc.and_(asked, ran)).select(names).to_pylist():
        groups.setdefault((row["cell"], row["search_block"]), []).append(row)
    for (cell, block), rows in groups.items():
        guess = inputs.chance.get(rows[0]["dataset"], 0.0)
        reached = [guess if row["state"] == "diverged" else row["val/accuracy"] for row in rows]
        yield Searched(
            cell=cell,
            block=block,
            accuracy=np.array([guess if value is None else value for value in reached]),
            startup=np.array([row["number"] < spec.budget.startup_trials for row in rows]),
            settings={n: np.array([row[c] for row in rows], dtype=np.float64) for n, c in columns.items()},
            diverged=np.array([row["state"] == "diverged" for row in rows]),
        )


def by_cell(inputs: Inputs, hyperparameters: tuple[str, ...] = ()) -> dict[str, list[Searched]]:
    """Cell -> its searches, a block each."""
    groups: dict[str, list[Searched]] = {}
    for searched in searches(inputs, hyperparameters):
        groups.setdefault(searched.cell, []).append(searched)
    return groups


def search_counts(blocks: list[Searched]) -> dict[str, int]:
    """Blocks, trials and diverged trials of a cell."""
    numbers = {
        "n_trials": sum(len(b.accuracy) for b in blocks),
        "n_diverged": sum(int(b.diverged.sum()) for b in blocks),
    }
    return {"n_blocks": len(blocks), **numbers}
