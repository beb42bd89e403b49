"""What a study found, first of all: at most three plain sentences, what no claim foresaw marked as exploratory."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis.claims.answers import body_of, difference_text
from analysis.claims.judgement import Judgement
from analysis.claims.part import failures_text
from analysis.effects.compare import FAILURES
from analysis.effects.readings import POOLED
from analysis.inputs import Inputs
from analysis.report.evidence import MANY
from analysis.stats.holm import holm
from analysis.trials.table import rows_of
from analysis.words.rows import Row, Rows, grouped, where
from analysis.words.wording import capitalised, listed, p_text, pairs_text

MOST = 3
EXPLORATORY = "exploratory"
_MOST_ARMS = 3


@dataclass(frozen=True, kw_only=True)
class Found:
    """A sentence, and what it is: a verdict, or exploratory. ``claim``: name and dataset of the claim, if it is of one."""

    text: str
    mark: str
    claim: tuple[str, str] = ("", "")


def found(inputs: Inputs) -> list[Found]:
    """Decided claims, those that support first; one that no claim foresaw; then what is open, up to ``MOST``."""
    several = len({judgement.dataset for judgement in inputs.judgements}) > 1
    ordered = sorted(inputs.judgements, key=lambda judgement: _weight(inputs.judgements, judgement))
    decided = [_claim(j, several) for j in ordered if j.verdict in ("supported", "refuted")]
    first = next(_unforeseen(inputs), None)
    told = [*decided[: MOST - (first is not None)], *([first] if first else [])]
    rest = [_claim(j, several) for j in ordered if j.verdict in ("undecided", "no verdict") and _has_effect(j)]
    return [*told, *rest][:MOST]


def _weight(judgements: Sequence[Judgement], judgement: Judgement) -> tuple[bool, int, str]:
    """Supported before refuted; what other claims presuppose before these; then by name."""
    rests = sum(getattr(other.claim, "presupposes", None) == judgement.name for other in judgements)
    return judgement.verdict != "supported", -rests, judgement.name


def _has_effect(judgement: Judgement) -> bool:
    return not judgement.held_by_controls and judgement.deciding.effect is not None


def _claim(judgement: Judgement, several: bool) -> Found:
    where_ = f" on {judgement.dataset}" if several else ""
    says = {"supported": "holds", "refuted": "does not hold"}.get(judgement.verdict, "is open")
    text = f"“{judgement.claim.text}” {says}{where_}: {body_of(judgement)}."
    return Found(
        text=_plain(text), mark=f"{judgement.name} {judgement.verdict}", claim=(judgement.name, judgement.dataset)
    )


def _unforeseen(inputs: Inputs) -> Iterator[Found]:
    """Arms that fail, then effects that stand out among all that no claim is about."""
    yield from _failing(inputs)
    candidates = [
        row
        for row in [*where(inputs.effects.to_pylist(), role=EXPLORATORY, claim=""), *inputs.level_effects.to_pylist()]
        if row["stratum"] == POOLED and row["p_sign_flip"] is not None and _is_main(inputs, row)
    ]
    adjusted = holm({str(i): row["p_sign_flip"] for i, row in enumerate(candidates)})
    for i, row in sorted(enumerate(candidates), key=lambda held: held[1]["p_sign_flip"]):
        p = adjusted[str(i)]
        # of arms that fail it is told that they do
        if p is not None and p <= inputs.spec.alpha and not failures_text(row):
            of = f"Holm over {len(candidates)} comparisons" if len(candidates) > 1 else "sign flips"
            told = f"{difference_text(row)} ({pairs_text(row['n_pairs'])}; p {_p(p)}, {of})"
            yield Found(text=_plain(f"{capitalised(told)}."), mark=EXPLORATORY)


def _is_main(inputs: Inputs, row: Row) -> bool:
    return row["outcome"] == "test/accuracy" or row["outcome"] in inputs.spec.claimed_outcomes


def _p(value: float) -> str:
    text = p_text(value)
    return text if text.startswith("<") else f"= {text}"


def _failing(inputs: Inputs) -> Iterator[Found]:
    rows: Rows = rows_of(inputs.trials, ("cell", "state"), phase="confirm")
    for row in rows:
        row["arm"] = inputs.heads[row["cell"]]["arm"]
        row["failed"] = row["state"] in FAILURES
    arms = {arm: (sum(row["failed"] for row in held), len(held)) for arm, held in grouped(rows, "arm").items()}
    often = {arm: counts for arm, counts in arms.items() if counts[0] > MANY * counts[1]}
    if not often:
        return
    named = sorted(often, key=lambda arm: -often[arm][0] / often[arm][1])
    told = listed(f"{arm} fails in {often[arm][0]} of {often[arm][1]} trainings" for arm in named[:_MOST_ARMS])
    more = len(named) - _MOST_ARMS
    told += f" (and {more} more {'arms' if more > 1 else 'arm'})" if more > 0 else ""
    rest = [counts for arm, counts in arms.items() if arm not in often]
    others = f"; all other arms together in {sum(n for n, _ in rest)} of {sum(n for _, n in rest)}" if rest else ""
    yield Found(text=f"{told}{others}.", mark=EXPLORATORY)


def _plain(text: str) -> str:
    """A gate with its form as figures call it: ``attention se.mul``."""
    return re.sub(r"(attention [\w-]+) attention_form ", r"\1.", text).replace("attention_form", "attention form")
