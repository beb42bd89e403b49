"""What tables are made from: a study's specification and records, and what follows from them, computed once each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.claims.amendments import Amendment, amendment_of
from analysis.claims.findings import Finding, findings
from analysis.claims.judgement import Judgement, LevelJudgement, amend, judge, judge_levels
from analysis.claims.looks import Course, course_of
from analysis.claims.pooled import pooled_judgements
from analysis.effects.assay import AssayResult, assay_results
from analysis.effects.crossed import interaction_rows
from analysis.effects.differences import differences_table
from analysis.effects.image_variance import correct_table
from analysis.effects.levels import LevelReading, level_readings
from analysis.effects.table import effects_table
from analysis.trials.curves import curves_table
from analysis.trials.records import current_records
from analysis.trials.table import trials_table
from search_spaces.spec import Spec
from study.results.ledger import Contents
from study.schema import ReplicateRecord


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a table is made from. ``chance`` maps a dataset to the accuracy of guessing, 1 / number of classes.

    ``folder`` is the study's own, where the tables that statistics keep lie; ``None`` where there is none.
    ``importance_of`` computes the importance of hyperparameters, for which Optuna is needed; ``None`` leaves it out.
    ``registration`` is what the study claimed before it knew results (``study.results.registration``); without one
    nothing is known
    to have been changed. ``price`` is of a GPU hour (a core's without GPUs), if it was told.
    """

    spec: Spec
    contents: Contents
    chance: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None
    importance_of: Callable[[Spec, Sequence[ReplicateRecord]], list[dict[str, Any]]] | None = None
    registration: Mapping[str, Any] | None = None
    price: float | None = None

    @cached_property
    def built(self) -> dict[str, pa.Table]:
        """Registered tables built so far, by name: files and report show the same."""
        return {}

    @cached_property
    def trials(self) -> pa.Table:
        """One row a replicate."""
        return trials_table(self.spec, self.contents)

    @cached_property
    def effects(self) -> pa.Table:
        """One row a contrast, dataset, outcome and stratum."""
        return effects_table(self.spec, self.trials, self.chance, self.correct, self.amendment.words)

    @cached_property
    def correct(self) -> pa.Table:
        """Which test images each network names rightly, as packed bits."""
        return correct_table(self.contents)

    @cached_property
    def differences(self) -> pa.Table:
        """One row an eligible pair."""
        return differences_table(self.spec, self.trials)

    @cached_property
    def importances(self) -> list[dict[str, Any]]:
        """One row a dataset, evaluator and hyperparameter or factor."""
        return self.importance_of(self.spec, current_records(self.spec, self.contents)) if self.importance_of else []

    @cached_property
    def interactions(self) -> list[dict[str, Any]]:
        """Rows of the two tables of interactions."""
        return interaction_rows(self.spec, self.trials)

    @cached_property
    def curves(self) -> pa.Table:
        """One row a replicate, metric and epoch."""
        return curves_table(self.spec, self.contents)

    @cached_property
    def assay(self) -> list[AssayResult]:
        """Whether a known difference is seen, a dataset each."""
        return assay_results(self.spec, self.trials, self.chance)

    @cached_property
    def amendment(self) -> Amendment:
        """How the claims were changed after results were there."""
        return amendment_of(self.spec, self.registration, self.contents)

    @cached_property
    def course(self) -> Course | None:
        """Of a sequential study: its claims look by look."""
        return course_of(self.spec, self.trials, self.chance) if self.spec.sequential else None

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Every claim on a difference, on every dataset, then over datasets where there are enough."""
        return [*self._single, *self._over_datasets[0]]

    @cached_property
    def levels(self) -> list[LevelReading]:
        """What the level claims read, on every dataset."""
        return level_readings(self.spec, self.trials)

    @cached_property
    def level_judgements(self) -> list[LevelJudgement]:
        """Every level claim on every dataset, then over datasets where there are enough."""
        return [*self._single_levels, *self._over_datasets[1]]

    @cached_property
    def _single(self) -> list[Judgement]:
        if self.course:
            return amend(self.course.judgements, self.amendment)
        return amend(judge(self.spec, self.effects, self.differences, self.assay, self.levels), self.amendment)

    @cached_property
    def _single_levels(self) -> list[LevelJudgement]:
        if self.course:
            return amend(self.course.level_judgements, self.amendment)
        return amend(judge_levels(self.spec, self.effects, self.levels, self.assay), self.amendment)

    @cached_property
    def _over_datasets(self) -> tuple[list[Judgement], list[LevelJudgement]]:
        return pooled_judgements(self.spec, self._single, self._single_levels)

    @cached_property
    def findings(self) -> list[Finding]:
        """Claims of both kinds in words, in the order of their names."""
        return findings(self.spec, self.judgements, self.level_judgements)
