"""A claim over datasets: from its judgements on five datasets or more to one, by a t test over dataset means.

What bars a verdict on one dataset bars the pooled one; support moreover needs that on no dataset the interval lies below
zero (for a claim on a level: above the level that refutes it). The pooled judgements are a Holm family of their own, in
which every claim of the study stands, also one that is not on five datasets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from analysis.claims.judgement import Judgement, LevelJudgement
from analysis.claims.part import ClaimPart
from analysis.effects.levels import LevelReading
from analysis.stats.holm import directed_p, holm_levels
from analysis.stats.pooling import ALL_DATASETS, MIN_DATASETS, Pooled, pool
from analysis.stats.rule import Rule, rule_of
from analysis.stats.verdicts import Verdict, claim_verdict
from search_spaces.spec import Spec

_SUMMED = ("n_pairs", "n_excluded", "n_waiting", "n_unequal")
Located = list[tuple[str, ClaimPart]]


@dataclass(frozen=True, kw_only=True)
class PooledLevel(LevelReading):
    """A level claim over datasets: ``values`` holds one mean a dataset; ``against`` names those that refute it alone."""

    unit: ClassVar[str] = "dataset"
    barred: tuple[str, ...]
    against: tuple[str, ...]

    @property
    def p(self) -> float | None:
        """The directed p of the t test of "the mean is not below ``below``"."""
        shifted = pool([value - self.claim.below for value in self.values])
        return None if shifted.p is None else directed_p(shifted.p, shifted.mean, "lower")

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What forbids a verdict on one of the datasets, in words."""
        return self.barred

    def limits(self, level: float, rule: Rule) -> tuple[float, float] | None:
        """The t interval of the mean of datasets at ``level``; there is one look alone."""
        return pool(self.values).interval(level)

    def verdict(self, limits: tuple[float, float] | None, *, num_blocks: int, held_back: bool) -> Verdict:
        """As on one dataset, but never ``supported`` against a dataset."""
        found = super().verdict(limits, num_blocks=num_blocks, held_back=held_back)
        return "undecided" if found == "supported" and self.against else found


def pooled_judgements(
    spec: Spec, judgements: Sequence[Judgement], levels: Sequence[LevelJudgement]
) -> tuple[list[Judgement], list[LevelJudgement]]:
    """Claims on differences, and on levels, that have five datasets or more; both lists empty where there are fewer.

    Empty for a sequential study too: its datasets stop at looks of their own, which a t interval over them knows nothing of.
    """
    if spec.sequential:
        return [], []
    parts = {name: _located([j for j in judgements if j.name == name]) for name in spec.claims}
    readings = {name: _pooled_level([j for j in levels if j.reading.name == name]) for name in spec.level_claims}
    family: dict[str, list[float | None]] = {}
    for name, claim in spec.claims.items():
        ps = [_directed(located) for located in parts[name].values()]
        family[name] = ps + [None] * (len(claim.references) * len(claim.outcomes) - len(ps))
    for name, reading in readings.items():
        family[name] = [None if reading is None or reading.obstacles else reading.p]
    at = holm_levels(family, spec.alpha) if family else {}
    found = [
        _judgement(spec, [j for j in judgements if j.name == name], located, at[name])
        for name, located in parts.items()
        if located
    ]
    pooled_levels = [
        _level_judgement(spec, [j for j in levels if j.reading.name == name], reading, at[name])
        for name, reading in readings.items()
        if reading
    ]
    return found, pooled_levels


def _located(judgements: Sequence[Judgement]) -> dict[tuple[str, str], Located]:
    """Reference and outcome -> the part on each dataset, for those on enough of them."""
    found: dict[tuple[str, str], Located] = {}
    for judgement in judgements:
        for part in judgement.parts:
            found.setdefault((part.row["reference"], part.outcome.name), []).append((judgement.dataset, part))
    return {key: located for key, located in found.items() if len(located) >= MIN_DATASETS}


def _pooled(located: Located) -> Pooled | None:
    """Over the dataset means, positive in the claim's direction; ``None`` while a dataset has no pair."""
    effects = [part.effect for _, part in located]
    return None if None in effects else pool([effect for effect in effects if effect is not None])


def _directed(located: Located) -> float | None:
    pooled = _pooled(located)
    if pooled is None or pooled.p is None or any(part.obstacles for _, part in located):
        return None
    return directed_p(pooled.p, pooled.mean, "higher")


def _judgement(
    spec: Spec, judgements: Sequence[Judgement], parts: dict[tuple[str, str], Located], level: float
) -> Judgement:
    claim = judgements[0].claim
    num_parts = len(claim.references) * len(claim.outcomes)
    pooled = tuple(_part(located, level, num_parts) for located in parts.values())
    controls = tuple(dict.fromkeys(reason for judgement in judgements for reason in judgement.controls))
    control = [judgement.control for judgement in judgements if judgement.control]
    assay = [judgement.assay for judgement in judgements if judgement.assay]
    limits = [part.limits for part in pooled] + [None] * (num_parts - len(pooled))
    return Judgement(
        name=judgements[0].name,
        claim=claim,
        dataset=ALL_DATASETS,
        level=level,
        parts=pooled,
        control=next((result for result in control if not result.inside), control[0] if control else None),
        assay=next((result for result in assay if not result.seen), assay[0] if assay else None),
        controls=controls,
        waiting=any(judgement.waiting for judgement in judgements),
        verdict=claim_verdict(limits, num_blocks=spec.blocks, held_back=bool(controls)),
    )


def _part(located: Located, level: float, num_parts: int) -> ClaimPart:
    first, pooled = located[0][1], _pooled(located)
    turn = 1.0 if first.outcome.better == "higher" else -1.0
    row = dict(first.row) | {name: sum(part.row[name] for _, part in located) for name in _SUMMED}
    counts = [name for name in first.row if name.startswith(("n_arm_", "n_reference_"))]
    row |= {name: sum(part.row[name] for _, part in located) for name in counts}
    row |= {"dataset": ALL_DATASETS, "mcnemar_p": None}
    row |= {"mean_difference": turn * pooled.mean if pooled else None, "sd_difference": pooled.sd if pooled else None}
    chance = [part.at_chance for _, part in located]
    low, high = pooled.interval(level) if pooled else (None, None)
    part = ClaimPart(
        row=row,
        outcome=first.outcome,
        level=level,
        level_of_k=level / num_parts,
        effect=pooled.mean if pooled else None,
        low=low,
        high=high,
        high_of_k=pooled.interval(level / num_parts)[1] if pooled else None,
        at_chance=None if None in chance else math.fsum(x for x in chance if x is not None) / len(chance),
        smallest_detectable=pooled.smallest_detectable(level) if pooled else None,
        # the spread between datasets is all that counts here
        sign_flip=None,
        images=None,
        counts_images=False,
        obstacles=_gathered({dataset: part.obstacles for dataset, part in located}),
        num_datasets=len(located),
    )
    against = [dataset for dataset, part in located if part.high is not None and part.high < 0]
    if part.verdict == "supported" and against:
        return replace(part, obstacles=(f"on {', '.join(against)} the whole interval lies below zero",))
    return part


def _gathered(obstacles: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Each obstacle once, with the datasets it stands on."""
    where: dict[str, list[str]] = {}
    for dataset, texts in obstacles.items():
        for text in texts:
            where.setdefault(text, []).append(dataset)
    return tuple(f"on {', '.join(datasets)}: {text}" for text, datasets in where.items())


def _pooled_level(judgements: Sequence[LevelJudgement]) -> PooledLevel | None:
    if len(judgements) < MIN_DATASETS:
        return None
    readings = [judgement.reading for judgement in judgements]
    means = [math.fsum(reading.values) / len(reading.values) for reading in readings if reading.values]
    if len(means) < len(readings):  # a dataset without a value has no mean to pool
        return None
    claim = readings[0].claim
    return PooledLevel(
        name=readings[0].name,
        claim=claim,
        dataset=ALL_DATASETS,
        values=tuple(means),
        replicates=tuple(range(len(means))),
        num_left_out=0,
        num_planned=len(means),
        barred=_gathered({reading.dataset: reading.obstacles for reading in readings}),
        against=tuple(j.reading.dataset for j in judgements if j.limits and j.limits[0] > claim.above),
    )


def _level_judgement(
    spec: Spec, judgements: Sequence[LevelJudgement], reading: PooledLevel, level: float
) -> LevelJudgement:
    controls = tuple(dict.fromkeys(reason for judgement in judgements for reason in judgement.controls))
    limits = reading.limits(level, rule_of(spec))
    return LevelJudgement(
        reading=reading,
        level=level,
        limits=limits,
        controls=controls,
        waiting=any(judgement.waiting for judgement in judgements),
        verdict=reading.verdict(limits, num_blocks=spec.blocks, held_back=bool(controls)),
    )
