"""Every way a study reads a contrast: on a dataset, on an outcome, pooled over strata and in each of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from analysis.trials.grid import (
    COLLAPSED,
    COMPLETED,
    DIVERGED,
    NO_RECORD,
    ConfirmGrid,
    Flags,
    Floats,
    Integers,
    Stratum,
    label,
    strata_of,
)
from analysis.trials.outcomes import ReadOutcome
from search_spaces import Contrast
from study.schema import STATES

POOLED = "all"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison, one row per stratum and one column per pair.

    ``values`` are on the scale of the outcome's differences (NaN: none), ``converged`` says whether their estimator converged,
    ``counted`` whether the network counts at all. ``rows`` are rows of the grid's confirmed replicates, or ``NO_RECORD``.
    """

    rows: Integers
    values: Floats
    states: Integers
    converged: Flags
    counted: Flags

    @property
    def present(self) -> Flags:
        """Where there is a record."""
        return np.asarray(self.states != NO_RECORD)

    @property
    def completed(self) -> Flags:
        """Where the network completed."""
        return np.asarray(self.states == COMPLETED)

    @property
    def failure(self) -> Flags:
        """Where the network collapsed or diverged: an outcome, not a missing value."""
        return np.asarray((self.states == COLLAPSED) | (self.states == DIVERGED))

    @property
    def judged(self) -> Flags:
        """Where the training came to an end that counts: completed, collapsed or diverged."""
        return self.completed | self.failure

    def only(self, strata: slice, pairs: slice | Flags) -> "Side":
        """The same side in some of its strata and pairs."""
        at = strata, pairs
        return Side(**{field.name: getattr(self, field.name)[at] for field in fields(self)})

    def count(self, state: str) -> int:
        """How many networks ended in ``state``."""
        return int(np.count_nonzero(self.states == STATES.index(state)))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Two sides to compare. ``equal`` says where both spent the same budget, one row per stratum and one column per pair;
    ``planned`` is how many pairs the study plans here.
    """

    study: str
    contrast: Contrast
    dataset: str
    stratum: str
    outcome: ReadOutcome
    arm: Side
    reference: Side
    equal: Flags
    planned: int

    @property
    def head(self) -> dict[str, Any]:
        """What names the reading in a table."""
        named = {"study": self.study, "dataset": self.dataset, "stratum": self.stratum}
        named |= {"arm": label(self.contrast.arm), "reference": label(self.contrast.reference)}
        return named | {"outcome": self.outcome.name, "scale": self.outcome.scale}

    @property
    def completed(self) -> Flags:
        """Where both networks completed within equal budgets."""
        return self.arm.completed & self.reference.completed & self.equal


def readings(grid: ConfirmGrid, contrasts: Iterable[Contrast], outcomes: Iterable[ReadOutcome]) -> Iterator[Reading]:
    """Each contrast, dataset and outcome, pooled first (stratum ``all``), then by stratum."""
    outcomes = list(outcomes)
    for contrast in contrasts:
        for dataset, strata in strata_of(grid, contrast).items():
            planned = _planned(grid, strata)
            # a sequential study may have given one side more blocks: pairs come from those that both were asked for
            asked = slice(int(np.count_nonzero(grid.pairs[:, 0] < planned)) if grid.spec.sequential else None)
            equal = equal_budgets(grid, contrast, strata)
            parts = [(POOLED, slice(None)), *((stratum.label, slice(i, i + 1)) for i, stratum in enumerate(strata))]
            for outcome in outcomes:
                arm = _side(grid, outcome, [s.arm for s in strata])
                reference = _side(grid, outcome, [s.reference for s in strata])
                for stratum, where in parts:
                    yield Reading(
                        study=grid.spec.name,
                        contrast=contrast,
                        dataset=dataset,
                        stratum=stratum,
                        outcome=outcome,
                        arm=arm.only(where, asked),
                        reference=reference.only(where, asked),
                        equal=equal[where, asked],
                        planned=planned,
                    )


def _planned(grid: ConfirmGrid, strata: list[Stratum]) -> int:
    """Pairs planned; in a sequential study up to the look that every cell has begun."""
    if grid.spec.sequential is None:
        return grid.spec.blocks * grid.spec.replicates
    begun = [
        max(grid.pairs[grid.rows[cell] != NO_RECORD, 0], default=-1) + 1
        for s in strata
        for cell in (s.arm, s.reference)
    ]
    return next(look for look in grid.spec.looks if look >= min(begun, default=0))


def _side(grid: ConfirmGrid, outcome: ReadOutcome, cells: list[int]) -> Side:
    return Side(
        rows=grid.rows[cells],
        values=grid.values(outcome, cells),
        states=grid.states(cells),
        converged=grid.converged(outcome.name, cells),
        counted=grid.counted(outcome, cells),
    )


def equal_budgets(grid: ConfirmGrid, contrast: Contrast, strata: list[Stratum]) -> Flags:
    """Where both cells searched as many trials in the block and, if both are complete, trained for as many epochs.

    One row per stratum, one column per pair.
    """
    epochs = "epochs" not in contrast.arm
    equal = [same_budgets(grid, (s.arm, s.reference), epochs=epochs) for s in strata]
    return np.array(equal, dtype=np.bool_).reshape(len(strata), len(grid.pairs))


def same_budgets(grid: ConfirmGrid, cells: Iterable[int], *, epochs: bool = True) -> Flags:
    """Pairs in which all ``cells`` searched as many trials and, unless ``epochs`` may differ, trained as long."""
    cells = list(cells)
    same = (grid.budgets[cells] == grid.budgets[cells[:1]]).all(axis=0)
    if epochs:
        trained = np.where(grid.states(cells) == COMPLETED, grid.floats("epochs", cells), np.nan)
        same &= ~(np.fmax.reduce(trained) > np.fmin.reduce(trained))
    return np.asarray(same, dtype=np.bool_)
