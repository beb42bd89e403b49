"""The confirm phase as a grid of cells by replicates, and the pairs of cells in it that a contrast compares."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analysis.trials.records import agrees
from analysis.trials.table import setting_column
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
    entry.
    """

    spec: Spec
    cells: list[GridCell]
    pairs: Integers
    rows: Integers
    confirm: pa.Table
    budgets: Integers

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
    def _columns(self) -> dict[tuple[str, str], NDArray[Any]]:
        return {}

    def _column(self, name: str, kind: pa.DataType, missing: Any) -> NDArray[Any]:
        """A column, and ``missing`` after its end, where ``NO_RECORD`` points. Every contrast reads it: it is kept."""
        # as text, because a NaN is a key that only itself finds
        key = name, str(missing)
        if key not in self._columns:
            there = name in self.confirm.column_names
            values = self.confirm[name].cast(kind) if there else pa.nulls(self.confirm.num_rows, kind)
            filled = pc.fill_null(values, missing).to_numpy(zero_copy_only=False)
            self._columns[key] = np.append(filled, np.asarray([missing], filled.dtype))
        return self._columns[key]


def confirm_grid(spec: Spec, trials: pa.Table) -> ConfirmGrid:
    """Arrange a table of trials. Cells of the spec without any record stand in it too; cells, blocks, replicates and
    search trials that the spec does not ask for (left by a larger one) do not.

    Raises ``ValueError`` when one (cell, block, replicate) has two confirm rows.
    """
    names = pc.dictionary_encode(trials["cell"].combine_chunks())
    code = names.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    confirmed = pc.equal(trials["phase"], "confirm").to_numpy().astype(np.bool_)
    known = _cells(spec, trials, code, names.dictionary.to_pylist())
    block, replicate, number = (trials[name].to_numpy() for name in ("search_block", "replicate", "number"))
    # replicate r is block r, unless one block's winner is trained on several seeds
    asked = replicate < spec.replicates if spec.blocks == 1 else replicate == block
    kept = confirmed & np.isin(code, list(known)) & (block < spec.blocks) & asked
    pairs, pair = np.unique(np.stack([block[kept], replicate[kept]], axis=1), axis=0, return_inverse=True)
    position = {old: new for new, old in enumerate(known)}
    cell = np.array([position[old] for old in code[kept].tolist()], dtype=np.int64)
    cells = list(known.values())
    cells += [planned for planned in _planned(spec) if not any(agrees(c.levels, planned.levels) for c in cells)]
    rows = np.full((len(cells), len(pairs)), NO_RECORD, dtype=np.int64)
    taken = cell * max(len(pairs), 1) + pair.reshape(-1)
    if len(np.unique(taken)) != len(taken):
        raise ValueError("a cell has two confirmed rows of one block and replicate: build the table with trials_table")
    rows.reshape(-1)[taken] = np.arange(len(taken))
    searched: dict[tuple[int, int], int] = {}
    search = pc.equal(trials["phase"], "search").to_numpy().astype(np.bool_) & (number < spec.budget.search_trials)
    for key in zip(code[search].tolist(), block[search].tolist(), strict=True):
        searched[key] = searched.get(key, 0) + 1
    budgets = np.zeros_like(rows)
    for old, new in position.items():
        budgets[new] = [searched.get((old, int(b)), 0) for b in pairs[:, 0]]
    confirm = trials.filter(pa.array(kept))
    return ConfirmGrid(spec=spec, cells=cells, pairs=pairs, rows=rows, confirm=confirm, budgets=budgets)


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


def _planned(spec: Spec) -> list[GridCell]:
    fixed = str(spec.fixed.get("dataset", ""))
    return [GridCell(levels=levels, dataset=str(levels.get("dataset", fixed))) for levels in spec.cells()]


def _cells(spec: Spec, trials: pa.Table, code: Integers, names: list[str]) -> dict[int, GridCell]:
    """Code of each cell in the table -> the cell, for those the spec asks for, in order of the table."""
    first = np.unique(code, return_index=True)[1]
    factors = spec.factor_names()
    columns = list(dict.fromkeys([*map(setting_column, factors), "dataset"]))
    planned = list(spec.cells())
    cells = {}
    for i, row in enumerate(trials.select(columns).take(pa.array(first, pa.int64())).to_pylist()):
        levels_of_row = {name: row[setting_column(name)] for name in factors}
        cell = GridCell(levels=levels_of_row, dataset=row["dataset"], name=names[i])
        if any(agrees(cell.levels, levels) for levels in planned):
            cells[i] = cell
    return cells
