"""From a study's effects to one judgement per claim and dataset: its parts and controls, the verdict, why there is none."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from analysis.claims.amendments import Amendment
from analysis.claims.part import ClaimPart, claim_part, level_part
from analysis.claims.rule import Rule, rule_of
from analysis.effects.controls import AAResult, AssayResult, aa_results
from analysis.effects.levels import LevelReading
from analysis.effects.readings import POOLED
from analysis.effects.table import claim_ps
from analysis.stats.holm import padded
from analysis.stats.verdicts import Verdict, claim_verdict
from analysis.trials.grid import label
from analysis.words.wording import levels_text
from search_spaces import Claim, LevelClaim, Spec

# What an undecided claim lacks, in the order in which it is told.
_WHY = ("control", "refused", "waiting", "not estimable", "contradiction")
TOO_FEW = "too few pairs"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A claim on a dataset: its parts, the level of their intervals, and what holds a verdict back.

    ``control`` is the A/A control, outcome by outcome, ``assay`` the check of assay sensitivity; ``controls`` are the reasons
    for which no claim of this study is believed, in words. ``waiting`` says that pairs or controls planned here are still to
    run. ``look`` counts the looks of a sequential study from 1 (0: it has none). ``amended`` says in words how the claims were
    changed after results were there; ``post_hoc`` that this one was.
    """

    name: str
    claim: Claim | LevelClaim
    dataset: str
    num_blocks: int
    parts: tuple[ClaimPart, ...]
    control: tuple[AAResult, ...]
    assay: AssayResult | None
    controls: tuple[str, ...]
    waiting: bool
    look: int = 0
    amended: str = ""
    post_hoc: bool = False

    @property
    def arms(self) -> list[list[ClaimPart]]:
        """The parts arm by arm; those of a level claim all together, since it must hold of each arm."""
        if isinstance(self.claim, LevelClaim):
            return [list(self.parts)]
        return [[part for part in self.parts if part.row["arm"] == label(arm)] for arm in self.claim.all_arms]

    @property
    def verdict(self) -> Verdict:
        """The verdict rule applied to the parts; a claim made knowing results has none."""
        if self.post_hoc:
            return "no verdict"
        arms = [padded((part.limits for part in parts), self.claim.num_parts) for parts in self.arms]
        return claim_verdict(arms, num_blocks=self.num_blocks, held_back=bool(self.controls))

    @property
    def why(self) -> str:
        """What an undecided claim lacks: one of ``_WHY``, else too few pairs. Empty for any other verdict."""
        if self.verdict != "undecided":
            return ""
        if self.controls:
            return "waiting" if self.waiting and not self.failed_controls else "control"
        kinds = {obstacle.kind for part in self.parts for obstacle in part.forbidden}
        if self.num_missing:
            kinds.add("not estimable")
        # a contradiction matters where the claim would hold without it
        if any(part.limits and part.limits.barred and part.limits.holds for part in self.parts):
            kinds.add("contradiction")
        return next((kind for kind in _WHY if kind in kinds), TOO_FEW)

    @property
    def held_by_controls(self) -> bool:
        """Whether it is undecided for its controls, and for nothing of its own that is still to run."""
        pairs_wait = self.why == "waiting" and any(part.row["n_waiting"] for part in self.parts)
        return self.verdict == "undecided" and bool(self.controls) and not pairs_wait

    @property
    def failed_controls(self) -> bool:
        """Whether a control has run and not passed, or is missing: waiting does not mend it."""
        differs = any(result.state == "differs" for result in self.control)
        return not self.control or differs or bool(self.assay and self.assay.seen is False)

    @property
    def num_missing(self) -> int:
        """How many of the claim's comparisons are not in the study on this dataset."""
        return sum(self.claim.num_parts - len(parts) for parts in self.arms)

    @property
    def missing_text(self) -> str:
        """``1 of the claim's comparisons is not in this study on digits``; empty where all are."""
        num = self.num_missing
        verb = "is" if num == 1 else "are"
        return f"{num} of the claim's comparisons {verb} not in this study on {self.dataset}" if num else ""

    @property
    def lost(self) -> bool:
        """Whether no further block can decide the claim on this dataset."""
        return all(part.lost for part in self.parts)

    @property
    def deciding(self) -> ClaimPart:
        """The part that its verdict hangs on: of the arm that is nearest to holding the one that holds it back most."""
        return max((min(parts, key=ClaimPart.support) for parts in self.arms if parts), key=ClaimPart.support)

    @property
    def deciding_arm(self) -> list[ClaimPart]:
        """The comparisons of the arm that is nearest to holding."""
        return next(parts for parts in self.arms if self.deciding in parts)


def judge(
    spec: Spec,
    effects: pa.Table,
    differences: pa.Table,
    assay: Sequence[AssayResult],
    levels: Sequence[LevelReading] = (),
    rule: Rule | None = None,
    closed: Collection[tuple[str, str]] = (),
) -> list[Judgement]:
    """Every claim on every dataset of the study, in the order of the spec, level claims last; one family per dataset.

    ``effects`` and ``differences`` are the study's tables. All claims are tested at ``spec.alpha`` together, by ``rule``
    (default: at once, Holm's levels). ``closed`` names claims (with their dataset) that need no parts: of these the controls
    alone are judged.
    """
    rule = rule or rule_of(spec)
    rows, pairs = effects.to_pylist(), pooled_pairs(differences)
    control = aa_results(spec, rows, pairs)
    failed = list(dict.fromkeys(result.dataset for result in control if result.state == "differs"))
    judgements = []
    for dataset, ps in claim_ps(spec, rows, levels).items():
        level = rule.levels(ps)
        parts: dict[str, list[ClaimPart]] = {name: [] for name, place in closed if place == dataset}
        own_rows = [row for row in rows if row["dataset"] == dataset]
        for name, part in _parts(spec, own_rows, pairs, level, rule, skipped=set(parts)):
            parts.setdefault(name, []).append(part)
        for reading in levels:
            if reading.dataset == dataset and (reading.name, dataset) not in closed:
                refute = rule.level_refute / reading.claim.num_parts
                parts.setdefault(reading.name, []).append(level_part(reading, level[reading.name], refute, rule))
        own = tuple(result for result in control if result.dataset == dataset)
        known = next((result for result in assay if result.dataset == dataset), None)
        controls_wait = any(result.state == "not run" for result in own) or bool(known and known.seen is None)
        for name, found in parts.items():
            judgements.append(
                Judgement(
                    name=name,
                    claim=spec.all_claims[name],
                    dataset=dataset,
                    num_blocks=spec.blocks,
                    parts=tuple(found),
                    control=own,
                    assay=known,
                    controls=tuple(_controls(own, failed, known, declared=spec.assay is not None)),
                    waiting=controls_wait or any(part.row["n_waiting"] for part in found),
                )
            )
    order = list(spec.all_claims)
    return sorted(judgements, key=lambda judgement: order.index(judgement.name))


def _parts(
    spec: Spec,
    rows: Sequence[Mapping[str, Any]],
    pairs: Mapping[tuple[str, ...], Mapping[int, float]],
    level: Mapping[str, float],
    rule: Rule,
    skipped: Collection[str],
) -> Iterator[tuple[str, ClaimPart]]:
    """The comparisons of all claims on differences on one dataset, from its rows of the effects table."""
    beside: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        beside.setdefault((row["arm"], row["reference"]), []).append(row)
    for row in rows:
        if row["role"] != "primary" or row["claim"] in skipped:
            continue
        name, claim = row["claim"], spec.claims[row["claim"]]
        yield (
            name,
            claim_part(
                row,
                next(outcome for outcome in claim.outcomes if outcome.name == row["outcome"]),
                pairs.get(_where(row), {}),
                beside[row["arm"], row["reference"]],
                level[name] / len(claim.all_arms),
                rule.level_refute / claim.num_parts,
                spec.blocks * spec.replicates,
                rule,
            ),
        )


def _controls(
    control: Sequence[AAResult], failed: Sequence[str], assay: AssayResult | None, *, declared: bool
) -> Iterator[str]:
    """What holds every verdict back on a dataset, in words: a control that differs on any dataset (``failed``), one that is
    not there or not run, a known difference that is not seen or has no cells, though one is ``declared``.
    """
    waiting = max((result.n_waiting for result in control if result.state == "not run"), default=None)
    if failed:
        yield f"the A/A control differs by its margin or more on {', '.join(failed)}"
    elif not control:
        yield "this study has no A/A control, which every verdict needs"
    elif waiting is not None:
        whole = not waiting or not any(result.n_pairs for result in control)
        yield f"the A/A control {'has not run yet' if whole else f'waits for {waiting} of its pairs'}"
    if declared and assay is None:
        yield "the check of assay sensitivity that is declared has no cells here"
    elif assay and assay.seen is None:
        yield "the check of assay sensitivity has not run yet"
    elif assay and not assay.seen:
        yield f"a known difference ({levels_text(assay.arm)} minus {levels_text(assay.reference)}) is not seen"


def pooled_pairs(differences: pa.Table) -> dict[tuple[str, ...], dict[int, float]]:
    """(arm, reference, dataset, stratum, outcome) -> the differences pooled over strata, by replicate in ascending order."""
    found: dict[tuple[str, ...], dict[int, float]] = {}
    for row in differences.to_pylist():
        if row["stratum"] == POOLED:
            found.setdefault(_where(row), {})[row["replicate"]] = row["difference"]
    return found


def amend(judgements: Sequence[Judgement], amendment: Amendment) -> list[Judgement]:
    """The same, each saying what was changed in the claims; one that was made knowing results has no verdict."""
    return [replace(j, amended=amendment.words, post_hoc=j.name in amendment.post_hoc) for j in judgements]


def _where(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What names a reading in the effects and differences tables."""
    return row["arm"], row["reference"], row["dataset"], row["stratum"], row["outcome"]
