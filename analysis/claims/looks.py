"""A sequential study, look by look: where each claim was decided, and which cells go on to the next look.

A look after n blocks is the analysis of the study's first n blocks, as if there were no more; only levels and intervals know
of the other looks (``analysis.stats.rule``). So the look that a study has come to follows from its ledger alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from analysis.claims.judgement import Judgement, LevelJudgement, judge, judge_levels
from analysis.effects.assay import assay_results, deepest_strata
from analysis.effects.differences import differences_table
from analysis.effects.levels import level_readings
from analysis.effects.table import effects_table
from analysis.stats.rule import rule_of
from analysis.trials.grid import ConfirmGrid, confirm_grid, strata_of
from analysis.trials.records import agrees
from search_spaces.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Course:
    """Each claim at the look that decided it, or at the last one taken; ``further``: cell -> blocks, past the first look."""

    judgements: list[Judgement]
    level_judgements: list[LevelJudgement]
    further: dict[str, int]


def course_of(spec: Spec, trials: pa.Table, chance: Mapping[str, float] | None = None) -> Course:
    """Take the looks of a sequential study in turn, for as long as a look is complete and leaves a claim undecided.

    An undecided claim on a dataset needs the cells of its comparisons there, of the A/A control and of assay sensitivity. One
    that no further block can decide (a failure stays in its mean) asks for none.
    """
    held: dict[tuple[str, str], Judgement] = {}
    held_levels: dict[tuple[str, str], LevelJudgement] = {}
    further: dict[str, int] = {}
    for number, num_blocks in enumerate(spec.looks, start=1):
        first = trials.filter(pc.less(trials["search_block"], num_blocks))
        found, found_levels = _judge_at(spec, first, chance, number)
        # a claim that was decided before stays as it was then
        active = [j for j in found if _open(held.get((j.name, j.dataset)))]
        active_levels = [j for j in found_levels if _open(held_levels.get((j.reading.name, j.reading.dataset)))]
        held |= {(j.name, j.dataset): j for j in active}
        held_levels |= {(j.reading.name, j.reading.dataset): j for j in active_levels}
        everything: list[Judgement | LevelJudgement] = [*active, *active_levels]
        if any(j.waiting for j in everything) or num_blocks == spec.looks[-1]:
            break
        undecided = [j for j in everything if _open(j)]
        if not undecided:
            break
        further |= dict.fromkeys(_needed(spec, confirm_grid(spec, first), undecided), spec.looks[number])
    return Course(
        judgements=[held[j.name, j.dataset] for j in found],
        level_judgements=[held_levels[j.reading.name, j.reading.dataset] for j in found_levels],
        further=further,
    )


def _judge_at(
    spec: Spec, first: pa.Table, chance: Mapping[str, float] | None, number: int
) -> tuple[list[Judgement], list[LevelJudgement]]:
    """All claims at the look with this number, from the blocks up to it."""
    here, rule = spec.at_look(spec.looks[number - 1]), rule_of(spec, number)
    effects, levels = effects_table(here, first, chance), level_readings(here, first)
    assay = assay_results(here, first, chance)
    judgements = judge(here, effects, differences_table(here, first), assay, levels, rule)
    return [replace(j, look=number) for j in judgements], [
        replace(j, look=number) for j in judge_levels(here, effects, levels, assay, rule)
    ]


def _open(judgement: Judgement | LevelJudgement | None) -> bool:
    """Whether more blocks could decide it."""
    lost = isinstance(judgement, Judgement) and judgement.lost
    return judgement is None or (judgement.verdict == "undecided" and not lost)


def _needed(spec: Spec, grid: ConfirmGrid, undecided: Sequence[Judgement | LevelJudgement]) -> Iterator[str]:
    """Names of the cells that these claims rest on, each where it is undecided."""
    known = deepest_strata(spec, grid)
    for judgement in undecided:
        contrasts = [spec.control] if spec.control else []
        if isinstance(judgement, Judgement):
            dataset = judgement.dataset
            contrasts += judgement.claim.contrasts()
        else:
            dataset, arm = judgement.reading.dataset, judgement.reading.claim.arm
            yield from (cell.name for cell in grid.cells if cell.dataset == dataset and agrees(cell.levels, arm))
        strata = [stratum for contrast in contrasts for stratum in strata_of(spec, grid, contrast).get(dataset, [])]
        for stratum in strata + ([known[dataset]] if dataset in known else []):
            yield grid.cells[stratum.arm].name
            yield grid.cells[stratum.reference].name
