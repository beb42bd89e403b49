"""From a study's effects to one judgement per claim and dataset: Holm's level, the parts, the controls, the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from analysis.claims.amendments import Amendment
from analysis.claims.part import ClaimPart, claim_part, level_part
from analysis.claims.rule import Rule, rule_of
from analysis.effects.controls import AAResult, AssayResult, aa_results
from analysis.effects.levels import LevelReading
from analysis.effects.readings import POOLED
from analysis.effects.table import families
from analysis.stats.verdicts import Verdict, claim_verdict
from search_spaces import Claim, LevelClaim, Spec


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A claim on a dataset: its parts (a level claim has one), the level of their intervals, and what holds a verdict back.

    ``controls`` are the reasons for which no claim of this study is believed (A/A control, assay sensitivity), in words.
    ``waiting`` says that pairs or controls planned here are still to run. ``look`` counts the looks of a sequential study
    from 1 (0: it has none). ``amended`` says in words how the claims were changed after results were there; ``post_hoc``
    that this one was.
    """

    name: str
    claim: Claim | LevelClaim
    dataset: str
    num_blocks: int
    parts: tuple[ClaimPart, ...]
    control: AAResult | None
    assay: AssayResult | None
    controls: tuple[str, ...]
    waiting: bool
    look: int = 0
    amended: str = ""
    post_hoc: bool = False

    @property
    def verdict(self) -> Verdict:
        """The verdict rule applied to the parts; a claim made knowing results has none."""
        if self.post_hoc:
            return "no verdict"
        limits = [part.limits for part in self.parts] + [None] * self.num_missing
        return claim_verdict(limits, num_blocks=self.num_blocks, held_back=bool(self.controls))

    @property
    def num_missing(self) -> int:
        """How many of the claim's comparisons are not in the study on this dataset."""
        return self.claim.num_parts - len(self.parts)

    @property
    def lost(self) -> bool:
        """Whether no further block can decide the claim on this dataset."""
        return all(part.lost for part in self.parts)

    @property
    def deciding(self) -> ClaimPart:
        """The part that holds the claim back most: the one its verdict hangs on."""
        return min(self.parts, key=ClaimPart.support) if len(self.parts) > 1 else self.parts[0]


def judge(
    spec: Spec,
    effects: pa.Table,
    differences: pa.Table,
    assay: Sequence[AssayResult],
    levels: Sequence[LevelReading] = (),
    rule: Rule | None = None,
) -> list[Judgement]:
    """Every claim on every dataset of the study, in the order of the spec, level claims last; one family per dataset.

    ``effects`` and ``differences`` are the study's tables. All claims are tested at ``spec.alpha`` together, by ``rule``
    (default: at once, Holm's levels).
    """
    rule = rule or rule_of(spec)
    rows, pairs = effects.to_pylist(), _pairs(differences)
    scales: dict[tuple[str, ...], dict[str, float | None]] = {}
    for row in rows:
        scales.setdefault(_where(row), {})[row["outcome"]] = row["mean_difference"]
    control = aa_results(spec, rows)
    failed = [result.dataset for result in control if result.inside is False]
    judgements = []
    for dataset, family in families(spec, rows, levels).items():
        level = rule.levels(family)
        parts: dict[str, list[ClaimPart]] = {}
        for row in rows:
            if row["role"] == "primary" and row["dataset"] == dataset:
                claim = spec.claims[row["claim"]]
                part = claim_part(
                    row,
                    next(outcome for outcome in claim.outcomes if outcome.name == row["outcome"]),
                    pairs.get((*_where(row), row["outcome"]), {}),
                    scales[_where(row)],
                    level[row["claim"]],
                    claim.num_parts,
                    spec.blocks * spec.replicates,
                    rule,
                )
                parts.setdefault(row["claim"], []).append(part)
        for reading in levels:
            if reading.dataset == dataset:
                parts[reading.name] = [level_part(reading, level[reading.name], rule)]
        own = next((result for result in control if result.dataset == dataset), None)
        known = next((result for result in assay if result.dataset == dataset), None)
        controls_wait = bool(own and own.n_waiting) or bool(known and known.seen is None)
        for name, found in parts.items():
            pairs_wait = any(part.row["n_waiting"] for part in found)
            judgements.append(
                Judgement(
                    name=name,
                    claim=spec.all_claims[name],
                    dataset=dataset,
                    num_blocks=spec.blocks,
                    parts=tuple(found),
                    control=own,
                    assay=known,
                    controls=tuple(_controls(own, failed, known, bool(rule.looks) and not pairs_wait)),
                    waiting=controls_wait or pairs_wait,
                )
            )
    order = list(spec.all_claims)
    return sorted(judgements, key=lambda judgement: order.index(judgement.name))


def _controls(control: AAResult | None, failed: Sequence[str], assay: AssayResult | None, is_look: bool) -> list[str]:
    """What holds every verdict back on a dataset, in words: a control outside its margin on any dataset (``failed``), one
    not there or not run, a known difference not seen.

    ``is_look``: a verdict would end the claim's blocks, so that the control that it rests on must be as far.
    """
    reasons = []
    if failed:
        reasons.append(f"the A/A control differs by more than its margin on {', '.join(failed)}")
    elif control is None:
        reasons.append("this study has no A/A control, which every verdict needs")
    elif control.inside is None:
        reasons.append(f"the A/A control has {'not run yet' if control.n_waiting else 'no pair that ran to its end'}")
    if assay and assay.seen is None:
        reasons.append("the check of assay sensitivity has not run yet")
    elif assay and not assay.seen:
        reasons.append("a known difference (merge add minus none at depth) is not seen")
    if is_look and control and control.n_waiting and not reasons:
        reasons.append(f"the A/A control waits for {control.n_waiting} of its pairs")
    return reasons


def _pairs(differences: pa.Table) -> dict[tuple[str, ...], dict[int, float]]:
    """The pooled differences of each contrast, dataset and outcome, by replicate in ascending order."""
    found: dict[tuple[str, ...], dict[int, float]] = {}
    for row in differences.to_pylist():
        if row["stratum"] == POOLED:
            found.setdefault((*_where(row), row["outcome"]), {})[row["replicate"]] = row["difference"]
    return found


def amend(judgements: Sequence[Judgement], amendment: Amendment) -> list[Judgement]:
    """The same, each saying what was changed in the claims; one that was made knowing results has no verdict."""
    return [replace(j, amended=amendment.words, post_hoc=j.name in amendment.post_hoc) for j in judgements]


def _where(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The pooled reading a row belongs to; rows of a stratum have one of their own."""
    return row["arm"], row["reference"], row["dataset"], row["stratum"]
