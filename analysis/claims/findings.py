"""Claims as people read them: the verdict, its answer in a sentence, the estimand, the reason, and what would change it.

Effects stand in the claim's direction: where lower is better, the reference's minus the arm's, so that positive always
speaks for the claim. A claim on a level shows the outcome itself, beside the two numbers that it is judged by.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from analysis.claims.answers import answer_of
from analysis.claims.judgement import Judgement
from analysis.claims.part import ClaimPart
from analysis.effects.compare import failure_counts
from analysis.words.wording import (
    effect_text,
    interval_text,
    levels_text,
    minus_text,
    number_text,
    outcome_text,
    p_text,
    pairs_text,
    size_text,
    unit_of,
)
from search_spaces import Claim, LevelClaim, Spec


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim on a dataset in words. ``why`` says what an undecided claim lacks."""

    name: str
    text: str
    dataset: str
    verdict: str
    why: str
    label: str
    sentence: str
    estimand: str
    reason: str
    change: str


def findings(
    spec: Spec,
    judgements: Sequence[Judgement],
    interactions: Sequence[Mapping[str, Any]] = (),
    advised: Mapping[tuple[str, str], str] | None = None,
) -> list[Finding]:
    """Every claim in words, by name, then dataset in the order of the study. ``interactions`` are rows of their table.

    ``advised``: claim and dataset -> which networks are left out, and what would help.
    """
    verdicts = {(judgement.name, judgement.dataset): str(judgement.verdict) for judgement in judgements}
    found = [
        Finding(
            name=judgement.name,
            text=judgement.claim.text,
            dataset=judgement.dataset,
            verdict=judgement.verdict,
            why=judgement.why,
            label=_qualifier(spec, judgement),
            sentence=answer_of(judgement, verdicts, interactions),
            estimand=_sentence(_estimand(judgement)),
            reason=_sentence(_reason(judgement)),
            change=_sentence((advised or {}).get((judgement.name, judgement.dataset)) or _change(judgement, spec)),
        )
        for judgement in judgements
    ]
    return sorted(found, key=lambda finding: finding.name)


def _qualifier(spec: Spec, judgement: Judgement) -> str:
    """What stands beside the verdict: the study's kind, the claim's look, and changes of the claims."""
    labels = ["at these hyperparameters"] if spec.blocks == 1 else []
    labels += ["demonstration"] if spec.demonstration else []
    if judgement.look:
        labels.append(f"look {judgement.look} of {len(spec.looks)}, {spec.looks[judgement.look - 1]} blocks")
    if judgement.amended:
        labels.append(f"post hoc, {judgement.amended}" if judgement.post_hoc else judgement.amended)
    return "; ".join(labels)


def _estimand(judgement: Judgement) -> str:
    """What was estimated, how big it is, against which margin, and what could have been seen."""
    claim, parts = judgement.claim, judgement.parts
    if isinstance(claim, LevelClaim):
        return "; ".join(_level_text(claim, part) for part in parts)
    texts = list(dict.fromkeys(filter(None, map(_failures, parts))))
    for outcome in claim.outcomes:
        texts += _outcome_texts([part for part in parts if part.outcome == outcome.name])
    if empty := _without_pairs(claim, parts):
        texts.append(f"no pair is left to compare {empty}, smallest detectable effect unknown")
    # beside every support stands what so few trainings cannot have seen
    texts += [_unseen(judgement.deciding)] if judgement.verdict == "supported" else []
    return "; ".join(texts)


def _unseen(part: ClaimPart) -> str:
    """The upper limit of the arm's failure rate (Clopper and Pearson 1934): what so few trainings cannot have seen."""
    failed, trained = failure_counts(part.row, "arm")
    limit = float(stats.beta.ppf(0.95, failed + 1, trained - failed)) if failed < trained else 1.0
    seen = f"{failed} of {trained}" if failed else f"none of {trained}"
    return f"{seen} trainings of {levels_text(part.row['arm'])} failed, so it fails in at most {limit:.0%} (95%)"


def _reason(judgement: Judgement) -> str:
    """Why the verdict is what it is."""
    claim, part, several = judgement.claim, judgement.deciding, len(judgement.parts) > 1
    what = "level" if isinstance(claim, LevelClaim) else "effect"
    if judgement.post_hoc:
        return "it was made, or made anew, after results were known: it is exploratory"
    if judgement.verdict == "no verdict":
        return f"one search block: the {what} holds at the hyperparameters found, which may be the search's luck"
    if judgement.held_by_controls:
        return "; ".join([*judgement.controls, *(_texts(part) if isinstance(claim, LevelClaim) else [])])
    if judgement.verdict == "supported":
        if isinstance(claim, LevelClaim):
            return f"{'each' if several else 'the'} interval lies below {claim.below:g}"
        of_family = len(judgement.arms) > 1
        each = f"with {levels_text(part.row['arm'])} " if of_family else ""
        each += "in every comparison " if several and (not of_family or claim.num_parts > 1) else ""
        nowhere = ", and on no dataset it lies below zero" if part.num_datasets else ""
        return f"{each}the interval lies above zero and reaches the margin{nowhere}"
    if judgement.verdict == "refuted":
        if isinstance(claim, LevelClaim):
            return f"the interval lies above {claim.above:g}"
        limit = effect_text(part.outcome, part.row["scale"], part.high_refute)
        which = f" ({_which(claim, part)})" if several else ""
        every = "; so it does for each arm" if len(judgement.arms) > 1 else ""
        return f"the upper limit for refutation, {limit}, lies below the margin of {_margin(part)}{which}{every}"
    if isinstance(claim, LevelClaim):
        return "; ".join(_texts(part)) or judgement.missing_text or _between_levels(part)
    by_reason: dict[str, list[str]] = {}
    for other in judgement.parts:
        if other.verdict == "undecided":
            # limits that bar support alone leave the question whether the interval decides
            open_ = not (other.limits and other.limits.holds) and not other.forbidden
            why = "; ".join([_between(other)] * open_ + _texts(other))
            by_reason.setdefault(why, []).append(_which(claim, other))
    reasons = [f"{' and '.join(which)}: {why}" if several else why for why, which in by_reason.items()]
    if judgement.num_missing:
        reasons.append(judgement.missing_text)
    return "; ".join(reasons)


def _change(judgement: Judgement, spec: Spec) -> str:
    """What would change the verdict."""
    claim, part = judgement.claim, judgement.deciding
    if judgement.post_hoc:
        return "a new study with these claims, under another name and seed"
    if judgement.verdict == "no verdict":
        return "independent search blocks (blocks: 10 or more)"
    if judgement.why == "control" and judgement.controls:
        return "a control that runs and passes; without it no number of blocks does"
    if judgement.why == "waiting":
        return "the pairs still to run: the same command continues"
    if judgement.why == "not estimable" and judgement.num_missing:
        whole = any(len(parts) == claim.num_parts for parts in judgement.arms)
        left = "without them more blocks can support it, not refute it" if whole else "more blocks alone do not"
        return f"the comparisons that {judgement.dataset} lacks; {left}"
    if isinstance(claim, LevelClaim):
        return _level_change(judgement, claim, part)
    if judgement.verdict == "supported":
        return f"a repetition whose upper limit lies below the margin of {_margin(part)}"
    if judgement.verdict == "refuted":
        limit = effect_text(part.outcome, part.row["scale"], part.high_refute)
        return f"an effect of at least the margin, {_margin(part)}; these data leave room for {limit} at most"
    if part.failures and judgement.why == "not estimable":
        return "trainings that do not fail (other learning rates, warm-up, more epochs); more blocks alone do not"
    if part.forbidden or judgement.why == "contradiction":
        return (
            f"pairs without what stands in the way; more {'datasets' if part.num_datasets else 'blocks'} alone do not"
        )
    if judgement.look and judgement.look == len(spec.looks):
        return f"a new study with more blocks: this one has spent its last look, {spec.looks[-1]} blocks"
    return _more_blocks(judgement)


def _level_text(claim: LevelClaim, part: ClaimPart) -> str:
    row, arm = part.row, levels_text(part.row["arm"])
    if row["mean_difference"] is None:
        return f"no network with {arm} gives {outcome_text(claim.outcome)} yet"
    shown = f"{number_text(row['mean_difference'], 3)} (no interval)"
    if math.isfinite(row["ci_low"]) and math.isfinite(row["ci_high"]):
        shown = interval_text(row["mean_difference"], row["ci_low"], row["ci_high"])
    return (
        f"{outcome_text(claim.outcome)} is {shown} with {arm} (supported below {claim.below:g}, "
        f"refuted above {claim.above:g}; {_units(part)})"
    )


def _units(part: ClaimPart) -> str:
    """What a level is a mean of: ``8 networks``, ``5 datasets``."""
    num, unit = (part.num_datasets, "dataset") if part.num_datasets else (part.row["n_pairs"], "network")
    return f"{num} {unit}{'s' if num != 1 else ''}"


def _between_levels(part: ClaimPart) -> str:
    low, high = part.row["ci_low"], part.row["ci_high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        return _too_few(_units(part))
    return f"the interval, {number_text(low, 3)} to {number_text(high, 3)}, lies on neither side"


def _level_change(judgement: Judgement, claim: LevelClaim, part: ClaimPart) -> str:
    if judgement.verdict == "supported":
        return f"a repetition whose interval does not lie below {claim.below:g}"
    if judgement.verdict == "refuted":
        return f"a repetition whose interval does not lie above {claim.above:g}"
    if part.obstacles and part.num_datasets:
        return "datasets without what stands in the way; more of them alone do not"
    if judgement.why == "control" and claim.control:
        higher, lower = outcome_text(claim.control.higher), outcome_text(claim.control.lower)
        return f"a measurement in which {higher} is surely above {lower}"
    if part.obstacles:
        return "networks that run to the end and give the statistic"
    return f"more blocks, if the level is below {claim.below:g} or above {claim.above:g} at all"


def _failures(part: ClaimPart) -> str:
    text, p = part.failures, part.row["mcnemar_p"]
    if not text or p is None:
        return text
    return f"{text} (exact McNemar p {'< 0.001' if p < 0.001 else f'= {p_text(p)}'})"


def _outcome_texts(parts: list[ClaimPart]) -> list[str]:
    """One outcome: each comparison's effect and interval, then margin, smallest detectable effect and pairs."""
    shown = [part for part in parts if part.effect is not None]
    if not shown:
        return []
    name, scale = outcome_text(parts[0].outcome), parts[0].row["scale"]
    effects = " and by ".join(f"{_effect(part)} for {_comparison(part)}" for part in shown)
    sizes = [part.smallest_detectable for part in shown if part.smallest_detectable is not None]
    finite = sizes and not math.isinf(max(sizes))
    detectable = size_text(parts[0].outcome, scale, max(sizes)) if finite else "none"
    num = min(part.row["n_pairs"] for part in shown)
    details = f"margin {_margin(parts[0])}, smallest detectable effect {detectable}, {pairs_text(num)}"
    if counted := next((part.row["n_images"] for part in shown if part.images), None):
        details += f", {counted:,} test images counted"
    if parts[0].num_datasets:
        details += f" on {min(part.num_datasets or 0 for part in shown)} datasets, t over their means"
    whose = " among networks that train" if "/" not in parts[0].outcome else ""
    failing = [part for part in shown if part.failures and "/accuracy" in part.outcome]
    texts = [f"{name}{', failures counted,' if failing else ''}{whose} differs by {effects} ({details})"]
    for part in failing:
        left = "none" if part.survivors is None else effect_text(part.outcome, scale, part.survivors)
        texts.append(f"among pairs in which both train: {left} for {_comparison(part)}")
    return texts


def _without_pairs(claim: Claim, parts: Sequence[ClaimPart]) -> str:
    """Outcomes without a single pair, each with its margin."""
    names = [
        f"{outcome_text(outcome.name)} (margin {_margin(found[0])})"
        for outcome in claim.outcomes
        if (found := [part for part in parts if part.outcome == outcome.name])
        and all(part.effect is None for part in found)
    ]
    return " or ".join(names)


def _effect(part: ClaimPart) -> str:
    """Effect and interval; the ratio too, where the unit is a logarithm."""
    name, scale = part.outcome, part.row["scale"]
    text = effect_text(name, scale, part.effect, part.low, part.high)
    is_log = unit_of(name, scale).difference == "log" and part.effect is not None
    return f"{text}, a factor of {math.exp(part.effect or 0.0):.2f}," if is_log else text


def _which(claim: Claim, part: ClaimPart) -> str:
    """What tells a comparison from the claim's others; empty when it is the only one."""
    names = [outcome_text(part.outcome)] if len(claim.outcomes) > 1 else []
    return ", ".join(names + ([_comparison(part)] if len(claim.contrasts()) > 1 else []))


def _texts(part: ClaimPart) -> list[str]:
    """Its obstacles in words, those first that forbid any verdict."""
    return [obstacle.text for obstacle in sorted(part.obstacles, key=lambda obstacle: obstacle.bars_support)]


def _comparison(part: ClaimPart) -> str:
    return minus_text(part.row["arm"], part.row["reference"], part.better)


def _margin(part: ClaimPart) -> str:
    return size_text(part.outcome, part.row["scale"], part.margin)


def _between(part: ClaimPart) -> str:
    """Why limits decide nothing."""
    if part.low is None or part.high is None or math.isinf(part.high):
        return _too_few(pairs_text(part.row["n_pairs"]))
    if part.low > 0 or part.high < part.margin:
        limit = effect_text(part.outcome, part.row["scale"], part.high_refute)
        return f"the upper limit lies below the margin of {_margin(part)}, that for refutation, {limit}, does not"
    return f"the interval holds both zero and the margin of {_margin(part)}"


def _too_few(counted: str) -> str:
    return f"{counted} {'is' if counted.startswith('1 ') else 'are'} too few for a verdict"


def _more_blocks(judgement: Judgement) -> str:
    """About how many blocks would decide, if effects and spreads stay as seen."""
    parts = judgement.parts
    each = [[n for part in arm if (n := part.pairs_to("refuted")) is not None] for arm in judgement.arms]
    support = [part.pairs_to("supported") for part in judgement.deciding_arm]
    # every arm must fall, each by the comparison in which it falls first
    ways = [(max(map(min, each)), "refute")] if all(each) else []
    if all(n is not None for n in support):
        ways.append((max(n for n in support if n is not None), "support"))
    if not ways and any(part.counts_images for part in parts):
        return "more test images as well as more blocks: the interval counts both"
    if not ways:
        return (
            "more datasets, or less spread between them"
            if parts[0].num_datasets
            else "more blocks, or a smaller spread"
        )
    num, way = min(ways)
    now = judgement.deciding.row["n_pairs"]
    return f"more blocks: about {max(num, now + 1)} in all would {way} it, if effect and spread stay as they are"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
