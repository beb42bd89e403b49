"""Every way a study reads a contrast: on a dataset, on an outcome, pooled over strata and in each of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from analysis.effects.compare import COMPLETED, Side
from analysis.trials.grid import NO_RECORD, ConfirmGrid, Flags, Integers, Stratum, strata_of
from analysis.trials.outcomes import ReadOutcome
from search_spaces import Contrast, Spec

POOLED = "all"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Two sides to compare; their arrays have one row a stratum and one column a pair of the grid.

    ``equal`` says where both sides spent the same budget; ``arm_rows`` and ``reference_rows`` are rows of the grid's
    confirmed replicates, or ``NO_RECORD``; ``planned`` is how many pairs the study plans here.
    """

    contrast: Contrast
    dataset: str
    stratum: str
    outcome: ReadOutcome
    arm: Side
    reference: Side
    equal: Flags
    arm_rows: Integers
    reference_rows: Integers
    planned: int


def readings(
    spec: Spec, grid: ConfirmGrid, contrasts: Iterable[Contrast], outcomes: Iterable[ReadOutcome]
) -> Iterator[Reading]:
    """Each contrast, dataset and outcome, pooled first (stratum ``all``), then by stratum."""
    outcomes = list(outcomes)
    for contrast in contrasts:
        for dataset, strata in strata_of(spec, grid, contrast).items():
            planned = _planned(spec, grid, strata)
            # a sequential study may have given one side more blocks: pairs come from those that both were asked for
            asked = slice(int(np.count_nonzero(grid.pairs[:, 0] < planned)) if spec.sequential else None)
            equal = _equal_budgets(grid, contrast, strata)[:, asked]
            parts = [(POOLED, slice(None)), *((stratum.label, slice(i, i + 1)) for i, stratum in enumerate(strata))]
            arms, references = ([getattr(s, side) for s in strata] for side in ("arm", "reference"))
            for outcome in outcomes:
                arm, reference = _side(grid, outcome, arms, asked), _side(grid, outcome, references, asked)
                for stratum, where in parts:
                    yield Reading(
                        contrast=contrast,
                        dataset=dataset,
                        stratum=stratum,
                        outcome=outcome,
                        arm=arm.only(where),
                        reference=reference.only(where),
                        equal=equal[where],
                        arm_rows=grid.rows[arms][where, asked],
                        reference_rows=grid.rows[references][where, asked],
                        planned=planned,
                    )


def _planned(spec: Spec, grid: ConfirmGrid, strata: list[Stratum]) -> int:
    """Pairs planned; in a sequential study up to the look that every cell has begun."""
    if spec.sequential is None:
        return spec.blocks * spec.replicates
    begun = [
        max(grid.pairs[grid.rows[cell] != NO_RECORD, 0], default=-1) + 1
        for s in strata
        for cell in (s.arm, s.reference)
    ]
    return next(look for look in spec.looks if look >= min(begun, default=0))


def _side(grid: ConfirmGrid, outcome: ReadOutcome, cells: list[int], pairs: slice) -> Side:
    return Side(
        values=grid.floats(outcome.name, cells)[:, pairs],
        states=grid.states(cells)[:, pairs],
        converged=grid.flags(f"{outcome.name}_converged", cells, missing=True)[:, pairs],
    )


def _equal_budgets(grid: ConfirmGrid, contrast: Contrast, strata: list[Stratum]) -> Flags:
    """Where both cells searched as many trials in the block and, if both are complete, trained for as many epochs."""
    arm, reference = [s.arm for s in strata], [s.reference for s in strata]
    equal = grid.budgets[arm] == grid.budgets[reference]
    if "epochs" not in contrast.arm:
        complete = (grid.states(arm) == COMPLETED) & (grid.states(reference) == COMPLETED)
        equal &= ~complete | (grid.floats("epochs", arm) == grid.floats("epochs", reference))
    return np.asarray(equal)
