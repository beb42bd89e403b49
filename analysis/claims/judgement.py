"""From a study's effects to one judgement a claim and dataset: Holm's level, the parts, the controls, the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa

from analysis.claims.amendments import Amendment
from analysis.claims.part import ClaimPart, claim_part
from analysis.effects.assay import AssayResult
from analysis.effects.control import AAResult, aa_results
from analysis.effects.levels import LevelReading, level_parts
from analysis.effects.readings import POOLED
from analysis.effects.table import claim_parts
from analysis.stats.rule import Rule, rule_of
from analysis.stats.verdicts import Verdict, claim_verdict
from search_spaces import Claim, Spec


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A claim on a dataset: its parts, the level of its intervals, what holds every verdict back, and the verdict.

    ``controls`` are the reasons for which no claim of this study is believed (A/A control, assay sensitivity), in words.
    ``waiting`` says that pairs or controls planned here are still to run. ``look`` counts the looks of a sequential study
    from 1 (0: it has none). ``amended`` says in words how the claims were changed after results were there; ``post_hoc``
    that this one was.
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
    waiting: bool
    look: int = 0
    amended: str = ""
    post_hoc: bool = False

    @property
    def lost(self) -> bool:
        """Whether no further block can decide the claim on this dataset."""
        return all(part.lost for part in self.parts)

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
    waiting: bool
    look: int = 0
    amended: str = ""
    post_hoc: bool = False


J = TypeVar("J", Judgement, LevelJudgement)


def judge_levels(
    spec: Spec,
    effects: pa.Table,
    levels: Sequence[LevelReading],
    assay: Sequence[AssayResult],
    rule: Rule | None = None,
) -> list[LevelJudgement]:
    """Every level claim on every dataset, in one family with the claims on differences. ``rule``: as for ``judge``."""
    rule = rule or rule_of(spec)
    primary = [row for row in effects.to_pylist() if row["role"] == "primary"]
    control = aa_results(spec, effects)
    judgements = []
    for reading in levels:
        asked = [row for row in primary if row["dataset"] == reading.dataset]
        level = rule.levels(claim_parts(spec, asked) | level_parts(levels, reading.dataset))[reading.name]
        held_back, waiting = _controls(control, assay, reading.dataset, bool(rule.looks) and not reading.num_waiting)
        limits = reading.limits(level, rule)
        judgements.append(
            LevelJudgement(
                reading=reading,
                level=level,
                limits=limits,
                controls=held_back,
                verdict=reading.verdict(limits, num_blocks=spec.blocks, held_back=bool(held_back)),
                waiting=waiting or reading.num_waiting > 0,
            )
        )
    return judgements


def judge(
    spec: Spec,
    effects: pa.Table,
    differences: pa.Table,
    assay: Sequence[AssayResult],
    level_claims: Sequence[LevelReading] = (),
    rule: Rule | None = None,
) -> list[Judgement]:
    """Every claim on every dataset of the study, in the order of the spec; one family of claims a dataset.

    ``effects`` and ``differences`` are the study's tables. Claims of both kinds are tested at ``spec.alpha`` together, by
    ``rule`` (default: at once, Holm's levels).
    """
    rule = rule or rule_of(spec)
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
        levels = rule.levels(claim_parts(spec, asked) | level_parts(level_claims, dataset))
        for name, claim in spec.claims.items():
            num_parts = len(claim.references) * len(claim.outcomes)
            parts = tuple(
                claim_part(
                    row,
                    next(outcome for outcome in claim.outcomes if outcome.name == row["outcome"]),
                    pairs.get((*_where(row), row["outcome"]), {}),
                    scales[_where(row)],
                    levels[name],
                    num_parts,
                    spec.blocks * spec.replicates,
                    rule,
                )
                for row in asked
                if row["claim"] == name
            )
            if not parts:
                continue
            own_control = next((result for result in control if result.dataset == dataset), None)
            own_assay = next((result for result in assay if result.dataset == dataset), None)
            pairs_waiting = any(part.row["n_waiting"] for part in parts)
            held_back, waiting = _controls(control, assay, dataset, bool(rule.looks) and not pairs_waiting)
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
                    waiting=waiting or pairs_waiting,
                )
            )
    order = {name: i for i, name in enumerate(spec.claims)}
    return sorted(judgements, key=lambda judgement: order[judgement.name])


def _controls(
    control: Sequence[AAResult], assay: Sequence[AssayResult], dataset: str, is_look: bool
) -> tuple[tuple[str, ...], bool]:
    """What holds every verdict back on a dataset, in words, and whether controls planned there are still to run.

    ``is_look``: a verdict would end the claim's blocks, so that the control that it rests on must be as far.
    """
    own_control = next((result for result in control if result.dataset == dataset), None)
    own_assay = next((result for result in assay if result.dataset == dataset), None)
    reasons = list(_held_back(control, own_control, own_assay))
    unfinished = own_control is not None and own_control.n_waiting > 0
    if is_look and own_control and unfinished and not reasons:
        reasons.append(f"the A/A control waits for {own_control.n_waiting} of its pairs")
    return tuple(reasons), unfinished or (own_assay is not None and own_assay.seen is None)


def _held_back(control: Sequence[AAResult], own: AAResult | None, assay: AssayResult | None) -> list[str]:
    """A control outside its margin anywhere, one not there or not run, a known difference not seen."""
    reasons = []
    failed = [result.dataset for result in control if result.inside is False]
    if failed:
        reasons.append(f"the A/A control differs by more than its margin on {', '.join(failed)}")
    elif own is None:
        reasons.append("this study has no A/A control, which every verdict needs")
    elif own.inside is None:
        reasons.append(f"the A/A control has {'not run yet' if own.n_waiting else 'no pair that ran to its end'}")
    if assay and assay.seen is None:
        reasons.append("the check of assay sensitivity has not run yet")
    elif assay and not assay.seen:
        reasons.append("a known difference (merge add minus none at depth) is not seen")
    return reasons


def _pairs(differences: pa.Table) -> dict[tuple[str, ...], dict[int, float]]:
    """The pooled differences of each contrast, dataset and outcome, by replicate in ascending order."""
    found: dict[tuple[str, ...], dict[int, float]] = {}
    for row in differences.to_pylist():
        if row["stratum"] == POOLED:
            found.setdefault((*_where(row), row["outcome"]), {})[row["replicate"]] = row["difference"]
    return found


def amend(judgements: Sequence[J], amendment: Amendment) -> list[J]:
    """The same, each saying what was changed in the claims; one that was made knowing results has no verdict."""
    amended = []
    for judgement in judgements:
        post_hoc = _name(judgement) in amendment.post_hoc
        verdict: Verdict = "no verdict" if post_hoc else judgement.verdict
        amended.append(replace(judgement, amended=amendment.words, post_hoc=post_hoc, verdict=verdict))
    return amended


def _name(judgement: Judgement | LevelJudgement) -> str:
    return judgement.name if isinstance(judgement, Judgement) else judgement.reading.name


def _where(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The pooled reading a row belongs to; rows of a stratum have one of their own."""
    return row["arm"], row["reference"], row["dataset"], row["stratum"]
