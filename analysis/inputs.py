"""What tables are made from: a study's specification and records, and what follows from them, computed once each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.claims.advice import advice
from analysis.claims.amendments import Amendment, amendment_of
from analysis.claims.findings import Finding, findings
from analysis.claims.judgement import Judgement, amend, judge, pooled_pairs
from analysis.claims.looks import Course, assay_of, course_of
from analysis.claims.pooled import pooled_judgements
from analysis.effects.controls import AAResult, AssayResult, aa_results
from analysis.effects.crossed import interaction_rows
from analysis.effects.image_variance import Correct, correctness
from analysis.effects.levels import level_readings
from analysis.effects.table import differences_table, effects_table, level_effects_table
from analysis.trials.arms import cell_heads
from analysis.trials.grid import ConfirmGrid, confirm_grid
from analysis.trials.records import current_records
from analysis.trials.shortened import FULL, at_share
from analysis.trials.table import curves_table, trials_table
from search_spaces.spec import Spec
from study.results.ledger import Contents
from study.schema import Quantity, ReplicateRecord


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a table is made from. ``chance`` maps a dataset to the accuracy of guessing, 1 / number of classes.

    ``folder`` is the study's own, where the tables that statistics keep lie; ``None`` where there is none.
    ``importance_of`` computes the importance of hyperparameters, for which Optuna is needed; ``None`` leaves it out.
    ``quantities_of`` says what each statistic of a study estimates, for which torch is needed; without it a column is told by
    its name. ``registration`` is what the study claimed before it knew results (``study.results.workspace``); without one
    nothing is known to have been changed. ``price`` is of a GPU hour (a core's without GPUs), if it was told.
    """

    spec: Spec
    contents: Contents
    chance: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None
    importance_of: Callable[[Spec, Sequence[ReplicateRecord]], list[dict[str, Any]]] | None = None
    quantities_of: Callable[[Spec], Mapping[str, Sequence[Quantity]]] | None = None
    registration: Mapping[str, Any] | None = None
    price: float | None = None
    # of a study seen at a share of its epochs: the study itself, whose check of assay sensitivity holds there too
    whole: "Inputs | None" = None
    # registered tables and figures' data built so far, by name: files and report show the same
    built: dict[str, pa.Table] = field(default_factory=dict, init=False)

    @cached_property
    def trials(self) -> pa.Table:
        """One row per replicate."""
        return trials_table(self.spec, self.contents, self.quantities_of(self.spec) if self.quantities_of else {})

    @cached_property
    def heads(self) -> dict[str, dict[str, Any]]:
        """Cell -> what names it in tables and figures, for cells with results."""
        return cell_heads(self.spec, self.trials)

    @cached_property
    def grid(self) -> ConfirmGrid:
        """The confirmed replicates, by cell and pair."""
        return confirm_grid(self.spec, self.trials, self.chance)

    def trials_at(self, share: float) -> pa.Table:
        """The table of trials with those trained for ``share`` of the epochs in place of the confirmed ones."""
        return self.trials if share == FULL else trials_table(self.spec, at_share(self.spec, self.contents, share))

    @cached_property
    def assay_trials(self) -> dict[float, pa.Table]:
        """``trials_at`` of each share of the epochs that the check of assay sensitivity compares."""
        if self.whole:
            return self.whole.assay_trials
        return {share: self.trials_at(share) for share in self.spec.assay.shares} if self.spec.assay else {}

    @cached_property
    def correct(self) -> Correct:
        """Which test images each network names rightly."""
        return correctness(self.contents)

    @cached_property
    def effects(self) -> pa.Table:
        """One row per contrast, dataset, outcome and stratum."""
        return effects_table(self.grid, self.correct, self.amendment.words)

    @cached_property
    def main_effects(self) -> pa.Table:
        """The rows of ``effects`` on which verdicts rest: a tenth of them, and of the time they take."""
        return effects_table(self.grid, self.correct, self.amendment.words, main=True)

    @cached_property
    def level_effects(self) -> pa.Table:
        """Every level against the control's reference, exploratory: rows as ``effects`` has them, on the main outcomes."""
        return level_effects_table(self.grid, self.correct, self.amendment.words)

    @cached_property
    def differences(self) -> pa.Table:
        """One row per eligible pair."""
        return differences_table(self.grid)

    @cached_property
    def importances(self) -> list[dict[str, Any]]:
        """One row per dataset, evaluator and hyperparameter or factor."""
        return self.importance_of(self.spec, current_records(self.spec, self.contents)) if self.importance_of else []

    @cached_property
    def interactions(self) -> list[dict[str, Any]]:
        """Rows of the two tables of interactions."""
        return interaction_rows(self.grid)

    @cached_property
    def curves(self) -> pa.Table:
        """One row per replicate, metric and epoch."""
        return curves_table(self.spec, self.contents)

    @cached_property
    def control(self) -> list[AAResult]:
        """The A/A control on each dataset and outcome."""
        return aa_results(self.spec, self.main_effects.to_pylist(), pooled_pairs(self.differences))

    @cached_property
    def assay(self) -> list[AssayResult]:
        """Whether a known difference is seen, on each dataset."""
        return assay_of(self.spec, self.assay_trials, self.chance)

    @cached_property
    def amendment(self) -> Amendment:
        """How the claims were changed after results were there."""
        return amendment_of(self.spec, self.registration, self.contents)

    @cached_property
    def course(self) -> Course | None:
        """Of a sequential study: its claims look by look."""
        if not self.spec.sequential:
            return None
        return course_of(self.spec, self.trials, self.assay_trials, self.chance, self.correct)

    def planned_replicates(self, cell: str) -> int | None:
        """How many confirmed replicates of a cell the study plans by now; ``None`` where a joint search decides."""
        spec, further = self.spec, self.course.further if self.course else {}
        return None if spec.joint else further.get(cell, spec.looks[0]) * spec.replicates

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Every claim on every dataset, level claims last, then over datasets where there are enough."""
        if self.course:
            found = self.course.judgements
        else:
            levels = list(level_readings(self.grid))
            found = judge(self.spec, self.main_effects, self.differences, self.assay, levels)
        return amend([*found, *pooled_judgements(self.spec, found)], self.amendment)

    @cached_property
    def findings(self) -> list[Finding]:
        """The judgements in words, in the order of the claims' names."""
        advised = {(j.name, j.dataset): advice(self.grid, j, self.statistics) for j in self.judgements}
        return findings(self.spec, self.judgements, self.interactions, advised)

    @cached_property
    def statistics(self) -> dict[str, str]:
        """Estimate -> the statistic that gives it."""
        told = ((field.name, (field.metadata or {}).get(b"statistic", b"")) for field in self.trials.schema)
        return {name: statistic.decode() for name, statistic in told if statistic}
