"""What ``run`` ends with: each claim in a sentence, the main effects in aligned lines, what to know before believing them.

Lines fit in 100 columns for names of ordinary length. Drawing is left to the caller; nothing here knows a terminal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from analysis.claims.part import failures_text
from analysis.effects.readings import POOLED
from analysis.effects.table import contrast_key, shown_strata
from analysis.inputs import Inputs
from analysis.words.rows import Rows, distinct, grouped, where
from analysis.words.wording import capitalised, contrast_text, effect_text, outcome_text, p_text

DEMONSTRATION = "A demonstration: what it finds holds for networks and images this small, and for no others."
_ACCURACY = "test/accuracy"
_EXPLORATORY_P = "p (exploratory)"
_RIGHT = ("Pairs", "p", _EXPLORATORY_P)
_EFFECT = ("scale", "mean_difference", "ci_low", "ci_high")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Contrasts, each a heading with rows of text under ``headings``."""

    headings: list[str]
    contrasts: list[tuple[str, list[list[str]]]]

    def lines(self) -> list[str]:
        """Lines of text with aligned columns, the headings first; none without a row."""
        rows = [row for _, held in self.contrasts for row in held]
        widths = [max(map(len, column)) for column in zip(self.headings, *rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            aligned = zip(self.headings, cells, widths, strict=True)
            texts = [cell.rjust(width) if name in _RIGHT else cell.ljust(width) for name, cell, width in aligned]
            return ("  " + "  ".join(texts)).rstrip()

        lines = [line(self.headings)] if rows else []
        for heading, held in self.contrasts:
            lines += [heading, *map(line, held)]
        return lines


@dataclass(frozen=True, kw_only=True)
class Summary:
    """``claims``: a sentence each; ``effects``: of declared contrasts; ``levels``: of others; ``notes``."""

    claims: list[str]
    effects: Block
    levels: Block
    notes: list[str]


def summary(inputs: Inputs) -> Summary:
    """Test accuracy for every contrast and each claim's other outcomes for its own, pooled and by stratum.

    Strata are shown where a contrast has two to four of them; the effects table has all. Of levels that nobody compared
    stands the pooled effect on test accuracy and on what claims name.
    """
    spec, rows = inputs.spec, inputs.effects.to_pylist()
    strata = shown_strata(rows)
    main = [
        row
        for row in rows
        if (row["outcome"] == _ACCURACY or (row["claim"] and row["outcome"] in spec.claimed_outcomes))
        and row["stratum"] in strata[contrast_key(row)]
    ]
    several, amended = len({cell.dataset for cell in inputs.grid.cells}) > 1, inputs.amendment.words
    told = ["Outcome", "Pairs", f"Difference [{1 - spec.alpha:.0%}]"]
    others = where(inputs.level_effects.to_pylist(), stratum=POOLED)
    return Summary(
        claims=[
            f"{finding.name} on {finding.dataset}, {finding.verdict}{f' ({finding.label})' if finding.label else ''}. "
            f"{finding.sentence} To change it: {finding.change[:1].lower()}{finding.change[1:]}"
            for finding in inputs.findings
        ],
        effects=_block(main, ["Where", "Claim", *told, "p"], strata, several),
        levels=_block(others, [*told, _EXPLORATORY_P], shown_strata(others), several),
        notes=[f"{capitalised(amended)}."] * bool(amended) + _notes(inputs, main),
    )


def _block(rows: Rows, headings: list[str], strata: dict[tuple[str, ...], dict[str, str]], several: bool) -> Block:
    contrasts = []
    for held in grouped(rows, "arm", "reference", "dataset").values():
        first = held[0]
        heading = contrast_text(first["arm"], first["reference"]) + (f" on {first['dataset']}" if several else "")
        failures = failures_text(first)
        lines = [
            [
                strata[contrast_key(first)][stratum],
                ", ".join(row["claim"] for row in same if row["claim"]),
                outcome_text(outcome),
                str(same[0]["n_pairs"]),
                effect_text(outcome, *(same[0][name] for name in _EFFECT)) or "-",
                p_text(same[0]["p_sign_flip"]),
            ][-len(headings) :]
            # two claims that read one outcome share its line
            for (outcome, stratum), same in grouped(held, "outcome", "stratum").items()
        ]
        contrasts.append((heading + (f" ({failures})" if failures else ""), lines))
    return Block(headings=headings, contrasts=contrasts)


def _notes(inputs: Inputs, rows: Rows) -> list[str]:
    """What to know before believing the numbers, each once."""
    spec = inputs.spec
    notes = [result.sentence() for result in inputs.control] or ["This study has no A/A control."]
    notes += [result.sentence() for result in inputs.assay]
    if spec.blocks == 1:
        notes.append("One search block: effects hold at these hyperparameters and carry no verdict.")
    if spec.demonstration:
        notes.append(DEMONSTRATION)
    noted = [row for row in rows if row["note"] and row["stratum"] == POOLED]
    for (arm, reference, note), same in grouped(noted, "arm", "reference", "note").items():
        outcomes = ", ".join(map(outcome_text, distinct(same, "outcome")))
        notes.append(f"{contrast_text(arm, reference)} ({outcomes}): {note}.")
    gains = [row["pairing_gain"] for row in where(rows, outcome=_ACCURACY, stratum=POOLED)]
    if known := [gain for gain in gains if gain is not None]:
        notes.append(
            f"Pairing gain in test accuracy, 1 - Var(difference) / (Var arm + Var reference): median {median(known):.0%}."
        )
    level = "at Holm's level over the claims"
    if spec.sequential:
        looks = ", ".join(map(str, spec.looks))
        level = f"repeated ones over looks at {looks} blocks, at alpha over the number of claims; those above count one look"
    notes.append(
        f"Differences are arm minus reference; intervals ({1 - spec.alpha:.0%}) invert the sign-flip test; p is two-sided. "
        f"Claims: positive speaks for the claim, intervals {level}."
    )
    return notes
