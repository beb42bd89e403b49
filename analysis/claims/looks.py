"""A sequential study, interim look by interim look: where each claim was decided, and which cells go on to the next look.

A look after n blocks is the analysis of the study's first n blocks, as if there were no more; only levels and intervals know
of the other looks (``analysis.claims.rule``). So the look that a study has come to follows from its ledger alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from analysis.claims.judgement import Judgement, judge
from analysis.claims.rule import rule_of
from analysis.effects.controls import assay_results, deepest_strata
from analysis.effects.levels import level_readings
from analysis.effects.table import differences_table, effects_table
from analysis.trials.grid import ConfirmGrid, confirm_grid, strata_of
from analysis.trials.records import agrees
from search_spaces import Claim, Spec


@dataclass(frozen=True, kw_only=True)
class Course:
    """Each claim at the look that decided it, or at the last one taken; ``further``: cell -> blocks, past the first look."""

    judgements: list[Judgement]
    further: dict[str, int]


def course_of(spec: Spec, trials: pa.Table, chance: Mapping[str, float] | None = None) -> Course:
    """Take the looks of a sequential study in turn, for as long as a look is complete and leaves a claim undecided.

    An undecided claim on a dataset needs the cells of its comparisons there, of the A/A control and of assay sensitivity. One
    that no further block can decide (a failure stays in its mean) asks for none.
    """
    held: dict[tuple[str, str], Judgement] = {}
    further: dict[str, int] = {}
    for number, num_blocks in enumerate(spec.looks, start=1):
        # blocks past the look are none of the study's here, and are left out of its grid
        grid = confirm_grid(spec.at_look(num_blocks), trials)
        tables = effects_table(grid, chance), differences_table(grid)
        levels, rule = list(level_readings(grid)), rule_of(spec, number)
        judged = judge(grid.spec, *tables, assay_results(grid, chance), levels, rule)
        found = [replace(judgement, look=number) for judgement in judged]
        # a claim that was decided before stays as it was then
        active = [j for j in found if _open(held.get((j.name, j.dataset)))]
        held |= {(j.name, j.dataset): j for j in active}
        undecided = [j for j in active if _open(j)]
        if any(j.waiting for j in active) or num_blocks == spec.looks[-1] or not undecided:
            break
        further |= dict.fromkeys(_needed(grid, undecided), spec.looks[number])
    return Course(judgements=[held[j.name, j.dataset] for j in found], further=further)


def _open(judgement: Judgement | None) -> bool:
    """Whether more blocks could decide it."""
    return judgement is None or (judgement.verdict == "undecided" and not judgement.lost)


def _needed(grid: ConfirmGrid, undecided: Sequence[Judgement]) -> Iterator[str]:
    """Names of the cells that these claims rest on, each where it is undecided."""
    known = deepest_strata(grid)
    for judgement in undecided:
        dataset, claim = judgement.dataset, judgement.claim
        contrasts = [grid.spec.control] if grid.spec.control else []
        if isinstance(claim, Claim):
            contrasts += claim.contrasts()
        else:
            cells = [cell for cell in grid.cells if cell.dataset == dataset]
            yield from (cell.name for cell in cells if agrees(cell.levels, claim.arm))
        strata = [stratum for contrast in contrasts for stratum in strata_of(grid, contrast).get(dataset, [])]
        for stratum in strata + ([known[dataset]] if dataset in known else []):
            yield grid.cells[stratum.arm].name
            yield grid.cells[stratum.reference].name
