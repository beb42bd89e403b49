"""Claims of both kinds as people read them: verdict, one sentence, why, and what would change it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.claims.judgement import Judgement, LevelJudgement
from analysis.claims.words import change, no_verdict, qualifier, reason, sentence
from analysis.words.numbers import interval_text, number_text
from analysis.words.wording import levels_text, outcome_text
from search_spaces.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim on a dataset in words."""

    name: str
    text: str
    dataset: str
    verdict: str
    label: str
    sentence: str
    reason: str
    change: str


def findings(spec: Spec, judgements: Sequence[Judgement], levels: Sequence[LevelJudgement]) -> list[Finding]:
    """Every claim in words, by name, then dataset in the order of the study."""
    found = [
        Finding(
            name=judgement.name,
            text=judgement.claim.text,
            dataset=judgement.dataset,
            verdict=judgement.verdict,
            label=qualifier(spec, judgement),
            sentence=sentence(judgement, spec),
            reason=reason(judgement, spec),
            change=change(judgement, spec),
        )
        for judgement in judgements
    ]
    found += [
        Finding(
            name=judgement.reading.name,
            text=judgement.reading.claim.text,
            dataset=judgement.reading.dataset,
            verdict=judgement.verdict,
            label=qualifier(spec, judgement),
            sentence=_sentence(judgement, spec),
            reason=_reason(judgement),
            change=_change(judgement),
        )
        for judgement in levels
    ]
    return sorted(found, key=lambda finding: finding.name)


def _sentence(judgement: LevelJudgement, spec: Spec) -> str:
    reading, claim = judgement.reading, judgement.reading.claim
    label = f" ({labels})" if (labels := qualifier(spec, judgement)) else ""
    verdict = "has no verdict" if judgement.verdict == "no verdict" else f"is {judgement.verdict}"
    arm = levels_text(" ".join(f"{name}={level}" for name, level in claim.arm.items()))
    head = f"{reading.name} {verdict} on {reading.dataset}{label}"
    if not reading.values:
        return f"{head}: no network with {arm} gives {outcome_text(claim.outcome)} yet."
    num = len(reading.values)
    networks = f"{num} {reading.unit}{'s' if num != 1 else ''}"
    return (
        f"{head}: {outcome_text(claim.outcome)} is {_interval(judgement)} with {arm} (supported below {claim.below:g}, "
        f"refuted above {claim.above:g}; {networks})."
    )


def _interval(judgement: LevelJudgement) -> str:
    values, limits = judgement.reading.values, judgement.limits
    centre = sum(values) / len(values)
    if limits is None or not all(map(math.isfinite, limits)):
        return f"{number_text(centre, 3)} (no interval)"
    return interval_text(centre, *limits)


def _reason(judgement: LevelJudgement) -> str:
    reading, claim, limits = judgement.reading, judgement.reading.claim, judgement.limits
    if judgement.verdict == "no verdict":
        return no_verdict(judgement)[0].replace("the effect holds", "the level holds")
    if judgement.controls or reading.obstacles:
        text = "; ".join((*judgement.controls, *reading.obstacles))
        return f"{text[:1].upper()}{text[1:]}."
    if limits is None:
        return "There is no value to judge."
    if judgement.verdict == "supported":
        return f"The interval lies below {claim.below:g}."
    if judgement.verdict == "refuted":
        return f"The interval lies above {claim.above:g}."
    if not all(map(math.isfinite, limits)):
        return f"{len(reading.values)} {reading.unit}s cannot reach level {judgement.level:.2g}."
    return f"The interval, {number_text(limits[0], 3)} to {number_text(limits[1], 3)}, lies on neither side."


def _change(judgement: LevelJudgement) -> str:
    claim = judgement.reading.claim
    if judgement.verdict == "no verdict":
        return no_verdict(judgement)[1]
    if judgement.controls:
        return "A control that runs and passes; without it no number of blocks does."
    if judgement.verdict == "supported":
        return f"A repetition whose interval does not lie below {claim.below:g}."
    if judgement.verdict == "refuted":
        return f"A repetition whose interval does not lie above {claim.above:g}."
    if judgement.reading.obstacles:
        return "Networks that run to the end and give the statistic."
    return f"More blocks, if the level is below {claim.below:g} or above {claim.above:g} at all."
