"""The tables of a study. A new one is a function of ``Inputs`` under ``@TABLES.register`` in a file of this package.

Traits: ``columns``, the main columns shown in markdown and latex (default: all); ``formats``, what ``build_tables``
writes (default: all; a long table may leave the ones for reading out); ``title`` and ``place``, under which and where the
report shows it whole (default: not; the whole part of ``place`` is the chapter, see ``analysis.report``); ``optional``, for
one that the report leaves out while it is empty; ``shown``, a function of inputs and table that gives the rows which the
report shows (default: all).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.amendments import Amendment, amendment_of
from analysis.assay import AssayResult, assay_results
from analysis.crossed import interaction_rows
from analysis.curves import curves_table
from analysis.differences import differences_table
from analysis.effects import effects_table
from analysis.export import FORMATS, Column, write_table
from analysis.findings import Finding, findings
from analysis.image_variance import correct_table
from analysis.judgement import Judgement, LevelJudgement, amend, judge, judge_levels
from analysis.levels import LevelReading, level_readings
from analysis.looks import Course, course_of
from analysis.pooled_claims import pooled_judgements
from analysis.records import current_records
from analysis.trials import trials_table
from analysis.units import with_units
from search_spaces.spec import Spec
from study.ledger import Contents
from study.registry import TABLES, discover
from study.schema import ReplicateRecord


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a table is made from. ``chance`` maps a dataset to the accuracy of guessing, 1 / number of classes.

    ``folder`` is the study's own, where the tables that statistics keep lie; ``None`` where there is none.
    ``importance_of`` computes the importance of hyperparameters, for which Optuna is needed; ``None`` leaves it out.
    ``registration`` is what the study claimed before it knew results (``study.registration``); without one nothing is known
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


def build_table(inputs: Inputs, name: str) -> pa.Table:
    """One registered table, with the unit of every number. Raises ``UserError`` for an unknown name."""
    discover("analysis")
    if name not in inputs.built:
        inputs.built[name] = with_units(TABLES[name].build(inputs))
    return inputs.built[name]


def build_tables(
    inputs: Inputs, folder: Path, names: Iterable[str] = (), formats: Iterable[str] = ()
) -> dict[str, list[Path]]:
    """Write registered tables (all, or those of ``names``) into ``folder``; return table name -> files.

    ``formats`` overrules each table's own. Raises ``UserError`` for an unknown table or format.
    """
    discover("analysis")
    written = {}
    for name in list(names) or TABLES.names():
        traits = TABLES[name].traits
        chosen = list(formats) or traits.get("formats", FORMATS)
        table, note = build_table(inputs, name), inputs.amendment.words
        written[name] = write_table(table, folder, name, table_columns(name), chosen, note)
    return written


def table_columns(name: str) -> list[Column]:
    """The main columns of a registered table; empty for all."""
    return list(TABLES[name].traits.get("columns", ()))


@TABLES.register(
    "trials",
    formula="one row a replicate: identity, settings, cost, metrics, estimates",
    source="",
    columns=(
        Column(heading="Cell", name="cell"),
        Column(heading="Phase", name="phase"),
        Column(heading="Block", name="search_block", kind="number"),
        Column(heading="Replicate", name="replicate", kind="number"),
        Column(heading="Trial", name="number", kind="number"),
        Column(heading="State", name="state"),
        Column(heading="Epochs", name="epochs", kind="number"),
        Column(heading="Parameters", name="params", kind="number"),
        Column(heading="Validation accuracy", name="val/accuracy", kind="number"),
        Column(heading="Test accuracy", name="test/accuracy", kind="number"),
        Column(heading="Test loss", name="test/loss", kind="number"),
        Column(heading="At boundary", name="boundary"),
    ),
)
def _trials(inputs: Inputs) -> pa.Table:
    return inputs.trials


@TABLES.register(
    "effects",
    formula="one row a contrast, dataset, outcome and stratum: mean of arm minus reference over replicates",
    source="https://doi.org/10.1080/01621459.1969.10501057",
    columns=(
        Column(heading="Claim", name="claim"),
        Column(heading="Role", name="role"),
        Column(heading="Dataset", name="dataset"),
        Column(heading="Arm", name="arm"),
        Column(heading="Reference", name="reference"),
        Column(heading="Stratum", name="stratum"),
        Column(heading="Outcome", name="outcome", kind="outcome"),
        Column(heading="Pairs", name="n_pairs", kind="number"),
        Column(heading="Left out", name="n_excluded", kind="number"),
        Column(heading="Mean arm", name="mean_arm", kind="level"),
        Column(heading="Mean reference", name="mean_reference", kind="level"),
        Column(heading="Difference", name="mean_difference", kind="effect", low="ci_low", high="ci_high"),
        Column(heading="Spread", name="sd_difference", kind="effect"),
        *(
            Column(heading=f"{side.capitalize()} {state}", name=f"n_{side}_{state}", kind="number")
            for side in ("arm", "reference")
            for state in ("collapsed", "diverged")
        ),
        Column(heading="p", name="p_sign_flip", kind="p"),
        Column(heading="p, test images counted", name="p_images", kind="p"),
        Column(heading="p (Holm)", name="p_holm", kind="p"),
        Column(heading="Pairing gain", name="pairing_gain", kind="number"),
        Column(heading="Label", name="label"),
        Column(heading="Note", name="note"),
    ),
)
def _effects(inputs: Inputs) -> pa.Table:
    return inputs.effects


@TABLES.register(
    "curves",
    formula="one row a replicate, metric and epoch",
    source="",
    formats=("parquet",),
)
def _curves(inputs: Inputs) -> pa.Table:
    return inputs.curves


@TABLES.register(
    "differences",
    formula="one row an eligible pair of replicates: the values of arm and reference, and their difference",
    source="",
    formats=("parquet", "csv"),
)
def _differences(inputs: Inputs) -> pa.Table:
    return inputs.differences
