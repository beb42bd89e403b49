"""A sequential study, interim look by interim look: where each claim was decided, and which cells go on to the next look.

A look after n blocks is the analysis of the study's first n blocks, as if there were no more; only levels and intervals know
of the other looks (``analysis.claims.rule``). So the look that a study has come to follows from its ledger alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from analysis.claims.judgement import Judgement, judge
from analysis.claims.rule import rule_of
from analysis.effects.controls import AssayResult, assay_results
from analysis.effects.image_variance import Correct
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


def course_of(
    spec: Spec,
    trials: pa.Table,
    assay_trials: Mapping[float, pa.Table],
    chance: Mapping[str, float] | None = None,
    correct: Correct | None = None,
) -> Course:
    """Take the looks of a sequential study in turn, for as long as a look is complete and leaves a claim undecided.

    An undecided claim on a dataset needs the cells of its comparisons there, of the A/A control and of assay sensitivity. One
    that no further block can decide (an unequal budget stays in it) asks for none. ``assay_trials`` holds the table of trials
    at each share of the epochs that the check of assay sensitivity compares; ``correct`` says which test images each network
    names rightly.

    A claim that was decided stays as it was then, unless a later look finds that a control differs, or no longer sees the
    known difference: then no claim of the study is believed.
    """
    held: dict[tuple[str, str], Judgement] = {}
    further: dict[str, int] = {}
    for number, num_blocks in enumerate(spec.looks, start=1):
        # blocks past the look are none of the study's here, and are left out of its grid
        at_look = spec.at_look(num_blocks)
        grid = confirm_grid(at_look, trials, chance)
        tables = effects_table(grid, correct, main=True), differences_table(grid)
        levels, rule = list(level_readings(grid)), rule_of(spec, number)
        # a claim that was decided before stays as it was then
        closed = [key for key, judgement in held.items() if not _open(judgement)]
        judged = judge(at_look, *tables, assay_of(at_look, assay_trials, chance), levels, rule, closed)
        found = [replace(judgement, look=number) for judgement in judged]
        active = [j for j in found if (j.name, j.dataset) not in closed]
        held |= {(j.name, j.dataset): j for j in active}
        undecided = [j for j in active if _open(j)]
        if any(j.waiting for j in active) or num_blocks == spec.looks[-1] or not undecided:
            break
        further |= dict.fromkeys(_needed(grid, undecided), spec.looks[number])
    differs = any(result.state == "differs" for j in found for result in j.control)
    last = []
    for latest in found:
        decided = held[latest.name, latest.dataset]
        if differs or latest.failed_controls:
            decided = replace(decided, control=latest.control, assay=latest.assay, controls=latest.controls)
        last.append(decided)
    return Course(judgements=last, further=further)


def assay_of(
    spec: Spec, trials: Mapping[float, pa.Table], chance: Mapping[str, float] | None = None
) -> list[AssayResult]:
    """The check of assay sensitivity on each dataset; empty where the study declares none.

    ``trials`` holds the table of trials at each share of the epochs that is compared.
    """
    if spec.assay is None:
        return []
    grids = {share: confirm_grid(spec, table, chance) for share, table in trials.items()}
    return assay_results(spec.assay, *(grids[share] for share in spec.assay.shares))


def _open(judgement: Judgement | None) -> bool:
    """Whether more blocks could decide it."""
    return judgement is None or (judgement.verdict == "undecided" and not judgement.lost)


def _needed(grid: ConfirmGrid, undecided: Sequence[Judgement]) -> Iterator[str]:
    """Names of the cells that these claims rest on, each where it is undecided."""
    assay = grid.spec.assay
    for judgement in undecided:
        dataset, claim = judgement.dataset, judgement.claim
        contrasts = [grid.spec.control] if grid.spec.control else []
        sides = [assay.side(levels) for levels in (assay.arm, assay.reference)] if assay else []
        if isinstance(claim, Claim):
            contrasts += claim.contrasts()
        else:
            sides += claim.all_arms
        cells = [cell for cell in grid.cells if cell.dataset == dataset]
        yield from (cell.name for cell in cells if any(agrees(cell.levels, side) for side in sides))
        for stratum in [stratum for contrast in contrasts for stratum in strata_of(grid, contrast).get(dataset, [])]:
            yield grid.cells[stratum.arm].name
            yield grid.cells[stratum.reference].name
