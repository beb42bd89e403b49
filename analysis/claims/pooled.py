"""A claim over datasets: from its judgements on five datasets or more to one, by a t test over dataset means.

What bars a verdict on one dataset bars the pooled one; support moreover needs that on no dataset the interval lies below
zero (for a claim on a level: above the level that refutes it). The pooled judgements are a Holm family of their own, in
which every claim of the study stands, also one that is not on five datasets.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from analysis.claims.judgement import Judgement
from analysis.claims.part import ClaimPart, failures_text
from analysis.effects.obstacles import Obstacle
from analysis.stats.holm import claim_p, directed_p, holm_levels, padded
from analysis.stats.pooling import ALL_DATASETS, MIN_DATASETS, Pooled, pool
from analysis.stats.verdicts import oriented
from analysis.trials.grid import label
from search_spaces import Claim, LevelClaim, Levels, Spec

_SUMMED = ("n_pairs", "n_excluded", "n_waiting", "n_unequal", "n_arm_", "n_reference_")
# Dataset -> the part there, of one comparison.
Located = Mapping[str, ClaimPart]


def pooled_judgements(spec: Spec, judgements: Sequence[Judgement]) -> list[Judgement]:
    """Claims that have five datasets or more; none where there are fewer.

    None for a sequential study too: its datasets stop at looks of their own, which a t interval over them knows nothing of.
    """
    claims = spec.all_claims
    if spec.sequential or not claims:
        return []
    own = {name: [j for j in judgements if j.name == name] for name in claims}
    parts = {name: _located(found) for name, found in own.items()}
    level = holm_levels({name: _claim_p(claim, parts[name]) for name, claim in claims.items()}, spec.alpha)
    refute = spec.alpha / len(claims)
    return [_judgement(own[name], located, level[name], refute) for name, located in parts.items() if located]


def _claim_p(claim: Claim | LevelClaim, parts: Sequence[Located]) -> float | None:
    """The p of a claim over datasets, from its comparisons, arm by arm."""
    arms = [parts] if isinstance(claim, LevelClaim) else [_of_arm(parts, arm) for arm in claim.all_arms]
    return claim_p([padded(map(_directed, found), claim.num_parts) for found in arms])


def _of_arm(parts: Sequence[Located], arm: Levels) -> list[Located]:
    return [located for located in parts if next(iter(located.values())).row["arm"] == label(arm)]


def _located(judgements: Sequence[Judgement]) -> list[Located]:
    """The part on each dataset, for the comparisons that are on enough of them."""
    found: dict[tuple[str, str, str], dict[str, ClaimPart]] = {}
    for judgement in judgements:
        for part in judgement.parts:
            key = (part.row["arm"], part.row["reference"], part.outcome)
            found.setdefault(key, {})[judgement.dataset] = part
    return [located for located in found.values() if len(located) >= MIN_DATASETS]


def _pooled(located: Located) -> Pooled | None:
    """Over the dataset means, positive in the claim's direction; ``None`` while a dataset has no pair."""
    effects = [part.effect for part in located.values() if part.effect is not None]
    return pool(effects) if len(effects) == len(located) else None


def _directed(located: Located) -> float | None:
    pooled = _pooled(located)
    if pooled is None or pooled.p is None or any(part.obstacles for part in located.values()):
        return None
    return directed_p(pooled.p, pooled.mean, "higher")


def _judgement(
    judgements: Sequence[Judgement], parts: Sequence[Located], level: float, level_refute: float
) -> Judgement:
    assay = [judgement.assay for judgement in judgements if judgement.assay]
    claim = judgements[0].claim
    num_arms = 1 if isinstance(claim, LevelClaim) else len(claim.all_arms)
    return replace(
        judgements[0],
        dataset=ALL_DATASETS,
        parts=tuple(_part(located, level / num_arms, level_refute / claim.num_parts) for located in parts),
        control=tuple(result for judgement in judgements for result in judgement.control),
        assay=next((result for result in assay if not result.seen), assay[0] if assay else None),
        controls=tuple(dict.fromkeys(reason for judgement in judgements for reason in judgement.controls)),
        waiting=any(judgement.waiting for judgement in judgements),
    )


def _part(located: Located, level: float, level_refute: float) -> ClaimPart:
    parts, pooled = list(located.values()), _pooled(located)
    first = parts[0]
    low, high = pooled.interval(level) if pooled else (None, None)
    row = dict(first.row) | {"dataset": ALL_DATASETS, "mcnemar_p": None}
    row |= {name: sum(part.row[name] for part in parts) for name in row if name.startswith(_SUMMED)}
    # the outcome's own numbers, for the table
    names = ("mean_difference", "sd_difference", "ci_low", "ci_high")
    row |= dict.fromkeys(names)
    if pooled and low is not None and high is not None:
        mean, _ = oriented(pooled.mean, pooled.mean, first.better, first.zero)
        row |= dict(zip(names, (mean, pooled.sd, *oriented(low, high, first.better, first.zero)), strict=True))
    survivors = [part.survivors for part in parts if part.survivors is not None]
    # the spread between datasets is all that counts here: no interval by sign flips, none over test images
    part = ClaimPart(
        row=row,
        better=first.better,
        margin=first.margin,
        zero=first.zero,
        level=level,
        level_refute=level_refute,
        effect=pooled.mean if pooled else None,
        low=low,
        high=high,
        high_refute=pooled.interval(level_refute)[1] if pooled else None,
        survivors=math.fsum(survivors) / len(survivors) if len(survivors) == len(parts) else None,
        smallest_detectable=pooled.smallest_detectable(level) if pooled else None,
        obstacles=_gathered({dataset: part.obstacles for dataset, part in located.items()}),
        failures=failures_text(row) if any(part.failures for part in parts) else "",
        num_datasets=len(parts),
    )
    against = [dataset for dataset, p in located.items() if p.high is not None and p.high < min(0.0, p.margin)]
    if against:
        beyond = "below zero" if first.margin > 0 else f"above {first.zero - first.margin:g}"
        text = f"on {', '.join(against)} the whole interval lies {beyond}"
        return replace(part, obstacles=(*part.obstacles, Obstacle("contradiction", text, bars_support=True)))
    return part


def _gathered(obstacles: Mapping[str, tuple[Obstacle, ...]]) -> tuple[Obstacle, ...]:
    """Each obstacle once, with the datasets it stands on."""
    where: dict[Obstacle, list[str]] = {}
    for dataset, found in obstacles.items():
        for obstacle in found:
            where.setdefault(obstacle, []).append(dataset)
    return tuple(each._replace(text=f"on {', '.join(datasets)}: {each.text}") for each, datasets in where.items())
