"""From a study's effects to one judgement a claim and dataset: Holm's level, the parts, the controls, the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from analysis.assay import AssayResult
from analysis.claim_part import ClaimPart, claim_part
from analysis.control import AAResult, aa_results
from analysis.effects import claim_parts
from analysis.holm import holm_levels
from analysis.levels import LevelReading, level_parts
from analysis.readings import POOLED
from analysis.verdicts import Verdict, claim_verdict
from search_spaces.spec import Claim, Spec


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A claim on a dataset: its parts, the level of its intervals, what holds every verdict back, and the verdict.

    ``controls`` are the reasons for which no claim of this study is believed (A/A control, assay sensitivity), in words.
    """

    name: str
    claim: Claim
    dataset: str
    level: float
    parts: tuple[ClaimPart, ...]
    control: AAResult | None
    assay: AssayResult | None
    controls: tuple[str, ...]
    verdict: Verdict

    @property
    def deciding(self) -> ClaimPart:
        """The part that holds the claim back most: the one its verdict hangs on."""
        return min(self.parts, key=ClaimPart.support)


@dataclass(frozen=True, kw_only=True)
class LevelJudgement:
    """A level claim on a dataset: its reading, the level and limits of its interval, the controls, the verdict."""

    reading: LevelReading
    level: float
    limits: tuple[float, float] | None
    controls: tuple[str, ...]
    verdict: Verdict


def judge_levels(
    spec: Spec, effects: pa.Table, levels: Sequence[LevelReading], assay: Sequence[AssayResult]
) -> list[LevelJudgement]:
    """Every level claim on every dataset, in one Holm family with the claims on differences."""
    primary = [row for row in effects.to_pylist() if row["role"] == "primary"]
    control = aa_results(spec, effects)
    judgements = []
    for reading in levels:
        asked = [row for row in primary if row["dataset"] == reading.dataset]
        level = holm_levels(claim_parts(spec, asked) | level_parts(levels, reading.dataset), spec.alpha)[reading.name]
        held_back = _controls(control, assay, reading.dataset)
        judgements.append(
            LevelJudgement(
                reading=reading,
                level=level,
                limits=reading.limits(level),
                controls=held_back,
                verdict=reading.verdict(level, num_blocks=spec.blocks, held_back=bool(held_back)),
            )
        )
    return judgements


def judge(
    spec: Spec,
    effects: pa.Table,
    differences: pa.Table,
    assay: Sequence[AssayResult],
    level_claims: Sequence[LevelReading] = (),
) -> list[Judgement]:
    """Every claim on every dataset of the study, in the order of the spec; levels are Holm's, within a dataset.

    ``effects`` and ``differences`` are the study's tables. Claims of both kinds are tested at ``spec.alpha`` together.
    """
    rows = effects.to_pylist()
    pairs = _pairs(differences)
    scales: dict[tuple[str, ...], dict[str, float | None]] = {}
    for row in rows:
        scales.setdefault(_where(row), {})[row["outcome"]] = row["mean_difference"]
    primary = [row for row in rows if row["role"] == "primary"]
    control = aa_results(spec, effects)
    judgements = []
    for dataset in dict.fromkeys(row["dataset"] for row in primary):
        asked = [row for row in primary if row["dataset"] == dataset]
        levels = holm_levels(claim_parts(spec, asked) | level_parts(level_claims, dataset), spec.alpha)
        for name, claim in spec.claims.items():
            num_parts = len(claim.references) * len(claim.outcomes)
            parts = tuple(
                claim_part(
                    row,
                    next(outcome for outcome in claim.outcomes if outcome.name == row["outcome"]),
                    pairs.get((*_where(row), row["outcome"]), []),
                    scales[_where(row)],
                    levels[name],
                    num_parts,
                    spec.blocks * spec.replicates,
                )
                for row in asked
                if row["claim"] == name
            )
            if not parts:
                continue
            own_control = next((result for result in control if result.dataset == dataset), None)
            own_assay = next((result for result in assay if result.dataset == dataset), None)
            held_back = _controls(control, assay, dataset)
            limits = [part.limits for part in parts] + [None] * (num_parts - len(parts))
            judgements.append(
                Judgement(
                    name=name,
                    claim=claim,
                    dataset=dataset,
                    level=levels[name],
                    parts=parts,
                    control=own_control,
                    assay=own_assay,
                    controls=held_back,
                    verdict=claim_verdict(limits, num_blocks=spec.blocks, held_back=bool(held_back)),
                )
            )
    order = {name: i for i, name in enumerate(spec.claims)}
    return sorted(judgements, key=lambda judgement: order[judgement.name])


def _controls(control: Sequence[AAResult], assay: Sequence[AssayResult], dataset: str) -> tuple[str, ...]:
    own_control = next((result for result in control if result.dataset == dataset), None)
    own_assay = next((result for result in assay if result.dataset == dataset), None)
    return tuple(_held_back(control, own_control, own_assay))


def _held_back(control: Sequence[AAResult], own: AAResult | None, assay: AssayResult | None) -> list[str]:
    """A control outside its margin anywhere, one not there or not run, a known difference not seen."""
    reasons = []
    failed = [result.dataset for result in control if result.inside is False]
    if failed:
        reasons.append(f"the A/A control differs by more than its margin on {', '.join(failed)}")
    elif own is None:
        reasons.append("this study has no A/A control, which every verdict needs")
    elif own.inside is None:
        reasons.append("the A/A control has not run yet")
    if assay and assay.seen is None:
        reasons.append("the check of assay sensitivity has not run yet")
    elif assay and not assay.seen:
        reasons.append("a known difference (merge add minus none at depth) is not seen")
    return reasons


def _pairs(differences: pa.Table) -> dict[tuple[str, ...], list[float]]:
    """The pooled differences of each contrast, dataset and outcome."""
    found: dict[tuple[str, ...], list[float]] = {}
    for row in differences.to_pylist():
        if row["stratum"] == POOLED:
            found.setdefault((*_where(row), row["outcome"]), []).append(row["difference"])
    return found


def _where(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The pooled reading a row belongs to; rows of a stratum have one of their own."""
    return row["arm"], row["reference"], row["dataset"], row["stratum"]
