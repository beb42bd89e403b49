"""A claim's answer in one sentence, as one would say it to a colleague: yes, no, or undecided and for what reason."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.claims.judgement import Judgement
from analysis.claims.part import ClaimPart
from analysis.effects.readings import POOLED
from analysis.words.wording import (
    change_words,
    difference_words,
    levels_text,
    number_text,
    outcome_text,
    pairs_text,
    plain_outcome,
    size_words,
)
from search_spaces import LevelClaim

Row = Mapping[str, Any]


def answer_of(judgement: Judgement, verdicts: Mapping[tuple[str, str], str], interactions: Sequence[Row]) -> str:
    """One sentence. ``verdicts`` maps claim and dataset to the verdict; ``interactions`` are rows of their table."""
    claim, body = judgement.claim, body_of(judgement)
    if not isinstance(claim, LevelClaim):
        body += _depends(judgement, interactions)
        if claim.presupposes and verdicts.get((claim.presupposes, judgement.dataset)) == "refuted":
            body += f"; {claim.presupposes} is refuted, so there is no such effect to explain"
    opening = {
        "supported": "Yes",
        "refuted": "No",
        "undecided": f"Undecided ({judgement.why})",
        "no verdict": "No verdict",
    }[judgement.verdict]
    text = f"{opening}: {body}"
    loose = [outcome_text(result.outcome) for result in judgement.control if result.state == "inconclusive"]
    if loose:
        text += f"; the A/A control is inconclusive in {', '.join(dict.fromkeys(loose))}"
    return f"{text}."


def body_of(judgement: Judgement) -> str:
    """What was found on a claim and what it means for the verdict, without the verdict's own word."""
    claim = judgement.claim
    return _level(judgement, claim) if isinstance(claim, LevelClaim) else _comparison(judgement)


def _comparison(judgement: Judgement) -> str:
    """What was found, then what it means for the verdict."""
    part, family = judgement.deciding, len(judgement.arms) > 1
    if judgement.held_by_controls:
        return "; ".join(judgement.controls)
    if judgement.verdict == "supported":
        arm = judgement.deciding_arm
        found = " and ".join(_found(each, first=each is arm[0]) for each in arm)
        family_text = f", where any of {len(judgement.arms)} arms would do" if family else ""
        return f"{found}{family_text}{_trainings(part)}"
    if judgement.verdict == "refuted":
        margin = size_words(part.outcome, part.row["scale"], part.margin)
        told = "" if not family else f"even for the best of {len(judgement.arms)}, "
        each = " for every one" if family else ""
        return f"{told}{_found(part)}{_trainings(part)}; an advantage of {margin} is ruled out{each}"
    found = f"{_found(part)}{_trainings(part)}" if part.effect is not None else ""
    # without a verdict nothing is said on what the interval shows or rules out
    if judgement.verdict == "no verdict" and found:
        return found
    return "; ".join(filter(None, (found, _obstacle(judgement), _fallen(judgement))))


def _fallen(judgement: Judgement) -> str:
    """Of an undecided family the arms for which it is refuted already."""
    fallen = [parts[0] for parts in judgement.arms if any(part.verdict == "refuted" for part in parts)]
    if len(judgement.arms) == 1 or not fallen:
        return ""
    names = ", ".join(levels_text(part.row["arm"]) for part in fallen)
    return f"of the {len(judgement.arms)} arms {len(fallen)} {'is' if len(fallen) == 1 else 'are'} ruled out ({names})"


def _found(part: ClaimPart, first: bool = True) -> str:
    return difference_text(part.row, first)


def difference_text(row: Row, first: bool = True) -> str:
    """``test accuracy is 1.2 points higher with merge mul than with add``, of a row of effects; the arm is named once."""
    words = difference_words(row["outcome"], row["scale"], row["mean_difference"])
    who = f" with {levels_text(row['arm'])}" if first else ""
    return f"{plain_outcome(row['outcome'])} is {words}{who} than with {_reference(row)}"


def _reference(row: Row) -> str:
    """The reference's levels, without those that name a factor which the arm has just named."""
    named = [item.partition("=")[2] for item in row["reference"].split(" ")]
    return " ".join(dict.fromkeys(named)) if all(named) else levels_text(row["reference"])


def _trainings(part: ClaimPart) -> str:
    """Whose networks failed; of smoothness, whose networks it speaks of."""
    if "/" in part.outcome:
        return f" ({part.failures})" if part.failures else ""
    return " (among networks that train)"


def _obstacle(judgement: Judgement) -> str:
    """In a few words why there is no verdict."""
    texts = [o.text for part in judgement.parts for o in part.obstacles if o.kind == judgement.why]
    if texts:
        return texts[0].removeprefix("not estimable: ").removeprefix("refused: ")
    if judgement.why == "not estimable" and judgement.num_missing:
        return judgement.missing_text
    part = judgement.deciding
    if part.low is None or math.isinf(part.low):
        return f"{pairs_text(part.row['n_pairs'])} cannot tell" if part.row["n_pairs"] else "there are no pairs"
    margin = size_words(part.outcome, part.row["scale"], part.margin)
    if part.low <= 0 and (part.high or 0.0) >= part.margin:
        return f"neither no effect nor an advantage of {margin} can be ruled out"
    return f"an advantage of {margin} can be neither shown nor ruled out"


def _depends(judgement: Judgement, interactions: Sequence[Row]) -> str:
    """Factors on which an effect surely depends, each with its largest difference: of every comparison that supports the
    claim, else of the one that decides.
    """
    part = judgement.deciding
    if judgement.verdict != "supported":
        return _factors(part, interactions, "")
    arm = judgement.deciding_arm
    named = [f" on {plain_outcome(each.outcome)}" if len(arm) > 1 else "" for each in arm]
    return "".join(dict.fromkeys(_factors(each, interactions, on) for each, on in zip(arm, named, strict=True)))


def _factors(part: ClaimPart, interactions: Sequence[Row], on: str) -> str:
    largest = dict[str, Row]()
    for row in interactions:
        same = all(row[name] == part.row[name] for name in ("arm", "reference", "outcome", "dataset"))
        if not same or row["stratum"] != POOLED or row["kind"] != "difference" or row["ci_low"] is None:
            continue
        if not row["ci_low"] <= 0 <= row["ci_high"]:
            held = largest.setdefault(row["factor"], row)
            if abs(row["estimate"]) > abs(held["estimate"]):
                largest[row["factor"]] = row
    texts = [
        f"{name} ({row['level']} against {row['base']}: {change_words(part.outcome, part.row['scale'], row['estimate'])})"
        for name, row in largest.items()
    ]
    return f"; the effect{on} depends on {' and '.join(texts)}" if texts else ""


def _level(judgement: Judgement, claim: LevelClaim) -> str:
    if judgement.held_by_controls:
        return "; ".join(judgement.controls)
    if judgement.verdict == "undecided" and judgement.why != "too few pairs":
        return _obstacle(judgement)
    shown = []
    for part in judgement.parts:
        mean = part.row["mean_difference"]
        shown.append(f"{number_text(mean, 2)} with {levels_text(part.row['arm'])}" if mean is not None else "unknown")
    what = f"{plain_outcome(claim.outcome)} is {' and '.join(shown)}"
    if judgement.verdict == "no verdict":
        return what
    limit = {
        "supported": f"below {claim.below:g}",
        "refuted": f"above {claim.above:g}",
    }.get(judgement.verdict, f"neither surely below {claim.below:g} nor surely above {claim.above:g}")
    return f"{what}, {limit}"
