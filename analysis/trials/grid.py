"""The confirm phase as a grid of cells by replicates, and the pairs of cells in it that a contrast compares.

The outcome of a recipe (tune in a block, then train once) is the network that it yields, whatever became of it. So accuracy is
composite: a collapsed network counts with the accuracy it has, a diverged one with that of guessing. A fault of a machine
(``failed``) is no outcome. Losses and smoothness have no such value, and are read among networks that train.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analysis.trials.arms import cell_heads
from analysis.trials.outcomes import ReadOutcome
from analysis.trials.records import agrees
from search_spaces import Contrast, Level, Levels, Spec
from study.schema import STATES

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

NO_RECORD = -1
COMPLETED, COLLAPSED, DIVERGED = (STATES.index(state) for state in ("completed", "collapsed", "diverged"))


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """A combination of factor levels on a dataset; ``name`` as in the table of trials, empty where nothing has been run."""

    levels: Levels
    dataset: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Two cells (by position in the grid) that differ in what a contrast names and in nothing else."""

    label: str
    arm: int
    reference: int


@dataclass(frozen=True, kw_only=True)
class ConfirmGrid:
    """Confirmed replicates of ``spec`` by cell and pair: ``rows[cell, pair]`` is a row of ``confirm``, or ``NO_RECORD``.

    ``pairs`` holds one (block, replicate) per row, shared by all cells; ``budgets`` counts the search trials behind each
    entry; ``chance`` maps a dataset to the accuracy of guessing, 1 / classes.
    """

    spec: Spec
    cells: list[GridCell]
    pairs: Integers
    rows: Integers
    confirm: pa.Table
    budgets: Integers
    chance: Mapping[str, float]

    def values(self, outcome: ReadOutcome, cells: list[int]) -> Floats:
        """``outcome`` of ``cells`` on the scale of its differences; NaN where there is none."""
        values = outcome.scaled(self.floats(outcome.name, cells))
        if not outcome.is_composite:
            return values
        guessing = np.array([self.chance.get(self.cells[cell].dataset, np.nan) for cell in cells])
        return np.where(self.states(cells) == DIVERGED, guessing[:, None], values)

    def counted(self, outcome: ReadOutcome, cells: list[int]) -> Flags:
        """Where the training of ``cells`` ended in a way that has ``outcome``, and its estimator converged."""
        ended = (COMPLETED, COLLAPSED, DIVERGED) if outcome.is_composite else (COMPLETED,)
        return np.isin(self.states(cells), ended) & self.converged(outcome.name, cells)

    def floats(self, column: str, cells: list[int]) -> Floats:
        """Values of a numeric column for ``cells``; NaN where there is none."""
        return self._column(column, pa.float64(), np.nan)[self.rows[cells]]

    def converged(self, outcome: str, cells: list[int]) -> Flags:
        """Whether the estimator of ``outcome`` converged for ``cells``; ``True`` where the table does not say."""
        return self._column(f"{outcome}_converged", pa.bool_(), True)[self.rows[cells]]

    def states(self, cells: list[int]) -> Integers:
        """Positions in ``study.schema.STATES``, or ``NO_RECORD``."""
        return self._states[self.rows[cells]]

    @cached_property
    def _states(self) -> Integers:
        values = pc.index_in(self.confirm["state"], value_set=pa.array(STATES, pa.string())).to_numpy()
        return np.append(values.astype(np.int64), NO_RECORD)

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return {}

    def _column(self, name: str, kind: pa.DataType, missing: Any) -> NDArray[Any]:
        """A column, and ``missing`` after its end, where ``NO_RECORD`` points. Every contrast reads it: it is kept."""
        if name not in self._columns:
            there = name in self.confirm.column_names
            values = self.confirm[name].cast(kind) if there else pa.nulls(self.confirm.num_rows, kind)
            filled = pc.fill_null(values, missing).to_numpy(zero_copy_only=False)
            self._columns[name] = np.append(filled, np.asarray([missing], filled.dtype))
        return self._columns[name]


def confirm_grid(spec: Spec, trials: pa.Table, chance: Mapping[str, float] | None = None) -> ConfirmGrid:
    """Arrange a table of trials. Cells of the spec without any record stand in it too; cells, blocks, replicates and
    search trials that the spec does not ask for (left by a larger one) do not.

    Raises ``ValueError`` when one (cell, block, replicate) has two confirm rows.
    """
    planned, dataset = list(spec.cells()), spec.fixed.get("dataset", "")
    heads = cell_heads(spec, trials)
    heads = {name: head for name, head in heads.items() if any(agrees(head["levels"], levels) for levels in planned)}
    cells = [GridCell(levels=head["levels"], dataset=head["dataset"], name=name) for name, head in heads.items()]
    cells += [
        GridCell(levels=levels, dataset=str(levels.get("dataset", dataset)))
        for levels in planned
        if not any(agrees(cell.levels, levels) for cell in cells)
    ]
    cell = pc.index_in(trials["cell"], value_set=pa.array(heads, pa.string())).fill_null(NO_RECORD).to_numpy()
    block, replicate, number = (trials[name].to_numpy() for name in ("search_block", "replicate", "number"))
    search, confirm = (pc.equal(trials["phase"], phase).to_numpy() for phase in ("search", "confirm"))
    # replicate r is block r, unless one block's winner is trained on several seeds
    asked = replicate < spec.replicates if spec.blocks == 1 else replicate == block
    known = (cell != NO_RECORD) & (block < spec.blocks)
    kept, searched = confirm & known & asked, search & known & (number < spec.budget.search_trials)
    pairs, pair = np.unique(np.stack([block[kept], replicate[kept]], axis=1), axis=0, return_inverse=True)
    rows = np.full((len(cells), len(pairs)), NO_RECORD, dtype=np.int64)
    rows[cell[kept], pair.reshape(-1)] = np.arange(np.count_nonzero(kept))
    if np.count_nonzero(rows != NO_RECORD) < np.count_nonzero(kept):
        raise ValueError("a cell has two confirmed rows of one block and replicate: build the table with trials_table")
    num_searched = np.zeros((len(cells), spec.blocks), dtype=np.int64)
    np.add.at(num_searched, (cell[searched], block[searched]), 1)
    return ConfirmGrid(
        spec=spec,
        cells=cells,
        pairs=pairs,
        rows=rows,
        confirm=trials.filter(pa.array(kept)),
        budgets=num_searched[:, pairs[:, 0]],
        chance=chance or {},
    )


def strata_of(grid: ConfirmGrid, contrast: Contrast) -> dict[str, list[Stratum]]:
    """Dataset -> the strata in which ``contrast`` can be read. The spec's own dataset with none, when there is none."""
    others = [name for name in grid.spec.factor_names() if name not in contrast.arm]

    def context(cell: GridCell) -> tuple[Level | None, ...]:
        return tuple(cell.levels.get(name) for name in others)

    references = {context(c): i for i, c in enumerate(grid.cells) if agrees(c.levels, contrast.reference)}
    found: dict[str, list[Stratum]] = {}
    for i, cell in enumerate(grid.cells):
        if agrees(cell.levels, contrast.arm) and context(cell) in references:
            levels = {name: cell.levels[name] for name in others if name in cell.levels}
            stratum = Stratum(label=context_label(levels), arm=i, reference=references[context(cell)])
            found.setdefault(cell.dataset, []).append(stratum)
    return found or {str(grid.spec.fixed.get("dataset", "")): []}


def label(levels: Levels) -> str:
    """Readable levels: ``merge=mul``."""
    return " ".join(f"{name}={level}" for name, level in levels.items())


def context_label(levels: Levels) -> str:
    """Readable levels of the other factors; the dataset has a column of its own, no attention has no form."""
    hidden = {"dataset"} | ({"attention_form"} if levels.get("attention_form") == "none" else set())
    return label({name: level for name, level in levels.items() if name not in hidden}) or "-"
