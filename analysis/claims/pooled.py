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
from analysis.stats.holm import directed_p, holm_levels
from analysis.stats.pooling import ALL_DATASETS, MIN_DATASETS, Pooled, pool
from analysis.stats.verdicts import oriented
from search_spaces import Spec

_SUMMED = ("n_pairs", "n_excluded", "n_waiting", "n_unequal", "n_arm_", "n_reference_")
# Dataset -> the part there, of one comparison.
Located = Mapping[str, ClaimPart]


def pooled_judgements(spec: Spec, judgements: Sequence[Judgement]) -> list[Judgement]:
    """Claims that have five datasets or more; none where there are fewer.

    None for a sequential study too: its datasets stop at looks of their own, which a t interval over them knows nothing of.
    """
    if spec.sequential:
        return []
    claims = spec.all_claims
    own = {name: [j for j in judgements if j.name == name] for name in claims}
    parts = {name: _located(found) for name, found in own.items()}
    family: dict[str, list[float | None]] = {
        name: [_directed(located) for located in parts[name]] + [None] * (claim.num_parts - len(parts[name]))
        for name, claim in claims.items()
    }
    level = holm_levels(family, spec.alpha)
    return [_judgement(own[name], located, level[name]) for name, located in parts.items() if located]


def _located(judgements: Sequence[Judgement]) -> list[Located]:
    """The part on each dataset, for the comparisons that are on enough of them."""
    found: dict[tuple[str, str], dict[str, ClaimPart]] = {}
    for judgement in judgements:
        for part in judgement.parts:
            found.setdefault((part.row["reference"], part.outcome), {})[judgement.dataset] = part
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


def _judgement(judgements: Sequence[Judgement], parts: Sequence[Located], level: float) -> Judgement:
    control = [judgement.control for judgement in judgements if judgement.control]
    assay = [judgement.assay for judgement in judgements if judgement.assay]
    return replace(
        judgements[0],
        dataset=ALL_DATASETS,
        parts=tuple(_part(located, level, judgements[0].claim.num_parts) for located in parts),
        control=next((result for result in control if not result.inside), control[0] if control else None),
        assay=next((result for result in assay if not result.seen), assay[0] if assay else None),
        controls=tuple(dict.fromkeys(reason for judgement in judgements for reason in judgement.controls)),
        waiting=any(judgement.waiting for judgement in judgements),
    )


def _part(located: Located, level: float, num_parts: int) -> ClaimPart:
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
    chance = [part.at_chance for part in parts if part.at_chance is not None]
    # the spread between datasets is all that counts here: no interval by sign flips, none over test images
    part = ClaimPart(
        row=row,
        better=first.better,
        margin=first.margin,
        zero=first.zero,
        level=level,
        level_of_k=level / num_parts,
        effect=pooled.mean if pooled else None,
        low=low,
        high=high,
        high_of_k=pooled.interval(level / num_parts)[1] if pooled else None,
        at_chance=math.fsum(chance) / len(chance) if len(chance) == len(parts) else None,
        smallest_detectable=pooled.smallest_detectable(level) if pooled else None,
        obstacles=_gathered({dataset: part.obstacles for dataset, part in located.items()}),
        failures=failures_text(row) if any(part.failures for part in parts) else "",
        num_datasets=len(parts),
    )
    against = [dataset for dataset, p in located.items() if p.high is not None and p.high < min(0.0, p.margin)]
    if part.verdict == "supported" and against:
        beyond = "below zero" if first.margin > 0 else f"above {first.zero - first.margin:g}"
        return replace(part, obstacles=(f"on {', '.join(against)} the whole interval lies {beyond}",))
    return part


def _gathered(obstacles: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Each obstacle once, with the datasets it stands on."""
    where: dict[str, list[str]] = {}
    for dataset, texts in obstacles.items():
        for text in texts:
            where.setdefault(text, []).append(dataset)
    return tuple(f"on {', '.join(datasets)}: {text}" for text, datasets in where.items())
