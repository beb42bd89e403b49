"""A judgement in plain words: one sentence, the reason for the verdict, and what would change it.

Effects stand in the claim's direction: where lower is better, the reference's minus the arm's, so that positive always
speaks for the claim.
"""

import math

from analysis.claims.judgement import Judgement, LevelJudgement
from analysis.claims.part import ClaimPart, failures_text
from analysis.words.numbers import p_text
from analysis.words.wording import effect_text, minus_text, outcome_text, size_text, unit_of
from search_spaces.spec import Spec

_MORE_BLOCKS = "independent search blocks (blocks: 10 or more)"


def qualifier(spec: Spec, judged: Judgement | LevelJudgement | None = None) -> str:
    """What stands beside every verdict of a study, or beside that of one claim: its look, and changes of the claims."""
    labels = ["at these hyperparameters"] if spec.blocks == 1 else []
    labels += ["demonstration"] if spec.demonstration else []
    if judged and judged.look:
        labels.append(f"look {judged.look} of {len(spec.looks)}, {spec.looks[judged.look - 1]} blocks")
    if judged and judged.amended:
        labels.append(f"post hoc, {judged.amended}" if judged.post_hoc else judged.amended)
    return "; ".join(labels)


def no_verdict(judged: Judgement | LevelJudgement) -> tuple[str, str]:
    """Why a claim has no verdict, and what would give it one."""
    if judged.post_hoc:
        why = "It was made, or made anew, after results were known: it is exploratory"
        return f"{why}.", "A new study with these claims, under another name and seed."
    why = "One search block: the effect holds at the hyperparameters found, which may be the search's luck"
    return f"{why}.", f"{_MORE_BLOCKS[:1].upper()}{_MORE_BLOCKS[1:]}."


def sentence(judgement: Judgement, spec: Spec) -> str:
    """What was found, how big, against which margin, and what could have been seen, in one sentence."""
    label = f" ({labels})" if (labels := qualifier(spec, judgement)) else ""
    verdict = "has no verdict" if judgement.verdict == "no verdict" else f"is {judgement.verdict}"
    where = f" on {judgement.dataset}" if judgement.dataset else ""
    texts = list(dict.fromkeys(filter(None, map(_failures, judgement.parts))))
    for outcome in judgement.claim.outcomes:
        texts += _outcome_texts([part for part in judgement.parts if part.outcome == outcome])
    if empty := _without_pairs(judgement):
        texts.append(f"no pair is left to compare {empty}, smallest detectable effect unknown")
    return f"{judgement.name} {verdict}{where}{label}: {'; '.join(texts)}."


def reason(judgement: Judgement, spec: Spec) -> str:
    """Why the verdict is what it is."""
    several = len(judgement.parts) > 1
    if judgement.verdict == "no verdict":
        return no_verdict(judgement)[0]
    if judgement.controls:
        return _sentence("; ".join(judgement.controls))
    if judgement.verdict == "supported":
        each = "in every comparison " if several else ""
        nowhere = ", and on no dataset it lies below zero" if judgement.deciding.num_datasets else ""
        return _sentence(f"{each}the interval lies above zero and reaches the margin{nowhere}")
    if judgement.verdict == "refuted":
        part = judgement.deciding
        limit = effect_text(part.outcome.name, part.row["scale"], part.high_of_k)
        which = f" ({_which(judgement, part)})" if several else ""
        level = f"at level {part.level_of_k:.2g} the upper limit"
        return _sentence(f"{level}, {limit}, lies below the margin of {_margin(part)}{which}")
    by_reason: dict[str, list[str]] = {}
    for part in judgement.parts:
        if part.verdict == "undecided":
            why = "; ".join(part.obstacles) or _between(part)
            by_reason.setdefault(why, []).append(_which(judgement, part))
    reasons = [f"{' and '.join(which)}: {why}" if several else why for why, which in by_reason.items()]
    missing = len(judgement.claim.references) * len(judgement.claim.outcomes) - len(judgement.parts)
    if missing:
        reasons.append(f"{missing} of the claim's comparisons are not in this study on {judgement.dataset}")
    return _sentence("; ".join(reasons))


def change(judgement: Judgement, spec: Spec) -> str:
    """What would change the verdict."""
    if judgement.verdict == "no verdict":
        return no_verdict(judgement)[1]
    if judgement.controls:
        return _sentence("a control that runs and passes; without it no number of blocks does")
    part = judgement.deciding
    if judgement.verdict == "supported":
        return _sentence(f"a repetition whose upper limit lies below the margin of {_margin(part)}")
    if judgement.verdict == "refuted":
        limit = effect_text(part.outcome.name, part.row["scale"], part.high_of_k)
        return _sentence(
            f"an effect of at least the margin, {_margin(part)}; these data leave room for {limit} at most"
        )
    row = part.row
    if any(other.row["n_waiting"] for other in judgement.parts):
        return _sentence("the pairs still to run: the same command continues")
    if failures_text(row) and part.obstacles:
        return _sentence(
            "trainings that do not fail (other learning rates, warm-up, more epochs); more blocks alone do not"
        )
    if part.obstacles:
        more = "datasets" if part.num_datasets else "blocks"
        return _sentence(f"pairs without what stands in the way; more {more} alone do not")
    if judgement.look and judgement.look == len(spec.looks):
        return _sentence(f"a new study with more blocks: this one has spent its last look, {spec.looks[-1]} blocks")
    return _sentence(_more_blocks(judgement))


def _failures(part: ClaimPart) -> str:
    text, p = failures_text(part.row), part.row["mcnemar_p"]
    return f"{text} (exact McNemar p = {p_text(p)})" if text and p is not None else text


def _outcome_texts(parts: list[ClaimPart]) -> list[str]:
    """One outcome: each comparison's effect and interval, then margin, smallest detectable effect and pairs."""
    if not parts:
        return []
    name, scale = outcome_text(parts[0].outcome.name), parts[0].row["scale"]
    chance = [
        f"{effect_text(part.outcome.name, scale, part.at_chance)} for {_comparison(part)}"
        for part in parts
        if failures_text(part.row) and part.at_chance is not None
    ]
    texts = [f"with failures counted at chance, {name} differs by {' and by '.join(chance)}"] if chance else []
    shown = [part for part in parts if part.effect is not None]
    if not shown:
        return texts
    effects = " and by ".join(f"{_effect(part)} for {_comparison(part)}" for part in shown)
    sizes = [part.smallest_detectable for part in shown if part.smallest_detectable is not None]
    finite = sizes and not math.isinf(max(sizes))
    detectable = size_text(parts[0].outcome.name, scale, max(sizes)) if finite else "none"
    num = min(part.row["n_pairs"] for part in shown)
    details = (
        f"margin {_margin(parts[0])}, smallest detectable effect {detectable}, {num} pair{'s' if num != 1 else ''}"
    )
    if any(part.counts_images for part in shown):
        details += f", {shown[0].row['n_images']:,} test images counted"
    if parts[0].num_datasets:
        details += f" on {min(part.num_datasets or 0 for part in shown)} datasets, t over their means"
    left = "where both networks survived, " if chance else ""
    return [*texts, f"{left}{name} differs by {effects} ({details})"]


def _without_pairs(judgement: Judgement) -> str:
    """Outcomes without a single pair, each with its margin."""
    names = [
        f"{outcome_text(outcome.name)} (margin {_margin(parts[0])})"
        for outcome in judgement.claim.outcomes
        if (parts := [part for part in judgement.parts if part.outcome == outcome])
        and all(part.effect is None for part in parts)
    ]
    return " or ".join(names)


def _effect(part: ClaimPart) -> str:
    """Effect and interval; the ratio too, where the unit is a logarithm."""
    name, scale = part.outcome.name, part.row["scale"]
    text = effect_text(name, scale, part.effect, part.low, part.high)
    is_log = unit_of(name, scale).difference == "log" and part.effect is not None
    return f"{text}, a factor of {math.exp(part.effect or 0.0):.2f}," if is_log else text


def _which(judgement: Judgement, part: ClaimPart) -> str:
    """What tells a comparison from the claim's others; empty when it is the only one."""
    names = [outcome_text(part.outcome.name)] if len(judgement.claim.outcomes) > 1 else []
    return ", ".join(names + ([_comparison(part)] if len(judgement.claim.references) > 1 else []))


def _comparison(part: ClaimPart) -> str:
    return minus_text(part.row["arm"], part.row["reference"], part.outcome.better)


def _margin(part: ClaimPart) -> str:
    return size_text(part.outcome.name, part.row["scale"], part.outcome.margin)


def _between(part: ClaimPart) -> str:
    """Why limits decide nothing."""
    if part.low is None or part.high is None or math.isinf(part.high):
        return f"{part.row['n_pairs']} pairs cannot reach level {part.level:.2g}"
    if part.low > 0 or part.high < part.outcome.margin:
        return f"the upper limit is below the margin of {_margin(part)}, though not at level {part.level_of_k:.2g}"
    return f"the interval holds both zero and the margin of {_margin(part)}"


def _more_blocks(judgement: Judgement) -> str:
    """About how many blocks would decide, if effects and spreads stay as seen."""
    parts = judgement.parts
    refute = [n for part in parts if (n := part.pairs_to("refuted")) is not None]
    support = [part.pairs_to("supported") for part in parts]
    ways = [(min(refute), "refute")] if refute else []
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
