"""What ``compare`` prints: two studies side by side, or the claims of more, on a terminal, as Markdown or as JSON."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from tabulate import tabulate

from analysis.comparison import TwoStudies
from analysis.inputs import Inputs
from analysis.report.by_study import (
    POOLED_HEADINGS,
    agreement,
    claim_table,
    claim_texts,
    findings_over,
    pooled_rows,
    pooling_rules,
    study_of,
)
from analysis.words.export import markdown_text
from analysis.words.wording import contrast_text, effect_text, outcome_text
from study.errors import UserError, nearest
from study.printing.console import print_table, say

FORMATS = ("text", "md", "json")
_OVER = ("Claim", "Verdict", "Answer")
_Section = tuple[str, Sequence[str], list[tuple[str, ...]]]  # title, headings, rows


def check_format(form: str) -> None:
    """Raise ``UserError`` for an unknown format, before anything is read."""
    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}{nearest(form, FORMATS)}")


def print_comparison(found: TwoStudies, form: str, console: Console) -> None:
    """Print ``found`` as one of ``FORMATS``; Markdown and JSON, which are for files, without styles and wrapping."""
    if form == "json":
        values = {**dataclasses.asdict(found), "identical": found.identical}
        console.out(json.dumps(values, indent=2), highlight=False)
    else:
        _print(list(_lines(found)), _sections(found), form, console)


def print_by_study(inputs: Mapping[str, Inputs], form: str, console: Console) -> None:
    """Print the claims of several studies, by name, side by side, whether they agree, what they say over datasets."""
    studies = [study_of(of, name) for name, of in inputs.items()]
    reasons, texts = pooling_rules(studies), claim_texts(studies)
    over: list[tuple[str, ...]] = (
        [] if reasons else [(each.name, each.verdict, each.sentence) for each in findings_over(list(inputs.values()))]
    )
    agree = {name: agreement(studies, name) for name in texts}
    headings, rows = claim_table(studies)
    pooled = pooled_rows(studies)
    if form == "json":
        values = {"claims": [dict(zip(headings, row, strict=True)) for row in rows], "agreement": agree}
        values |= {
            "no verdict over datasets": reasons,
            "over datasets": [dict(zip(_OVER, row, strict=True)) for row in over],
        }
        values |= {"pooled": [dict(zip(POOLED_HEADINGS, row, strict=True)) for row in pooled]}
        console.out(json.dumps(values, indent=2), highlight=False)
        return
    lines = [f"{name}: {told}" for name, told in agree.items() if told]
    if reasons:
        lines.append(f"no verdict over datasets, by the rules: {'; '.join(reasons)}")
    sections: list[_Section] = [("Claims by study", headings, [tuple(row) for row in rows])]
    if over:
        sections.append(("Over datasets, by the rules", _OVER, over))
    if pooled:
        sections.append(("Over datasets, exploratory", POOLED_HEADINGS, [tuple(row) for row in pooled]))
    _print(lines, sections, form, console)


def _print(lines: Sequence[str], sections: Iterable[_Section], form: str, console: Console) -> None:
    """Lines, then tables, on a terminal or as Markdown."""
    if form == "md":
        parts = ["\n".join(f"- {markdown_text(line)}" for line in lines)]
        for title, headings, rows in sections:
            cells = [[markdown_text(cell) for cell in row] for row in rows]
            parts.append(f"## {title}\n\n{tabulate(cells, headings, tablefmt='pipe', disable_numparse=True)}")
        console.out("\n\n".join(parts), highlight=False)
        return
    for line in lines:
        say(console, line)
    for title, headings, rows in sections:
        print_table(console, headings, rows, title=title, num_left=len(headings))


def _lines(found: TwoStudies) -> Iterator[str]:
    yield f"A: {found.a}, {found.num_a:,} replicates"
    yield f"B: {found.b}, {found.num_b:,} replicates"
    if found.identical:
        yield "identical: the same specification, and every number of every replicate the same to the last bit"
        return
    if found.num_shared:
        yield (
            f"{found.num_shared:,} replicates are in both by their key (same settings and seeds); "
            f"{found.num_equal:,} of them have the same numbers to the last bit"
        )
    else:
        yield "no replicate is in both: effects are compared as independent samples"
    num = len(found.specification)
    differs = f"differs in {num} {'values' if num > 1 else 'value'}" if num else "is the same"
    yield f"the specification {differs}"
    reasons: dict[str, list[str]] = {}
    for name, why in found.refused.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        yield f"not compared: {', '.join(names)} ({why})"
    if not found.effects:
        yield "no contrast is read on the same dataset and outcome in both: no effect can be compared"


def _sections(found: TwoStudies) -> Iterator[_Section]:
    changes = {
        "Specification": found.specification,
        "Provenance": found.provenance,
        "Networks and cost": found.outcomes,
        "Verdicts": found.verdicts if found.changed_verdicts else [],
    }
    for title, rows in changes.items():
        if rows:
            yield title, ("What", "A", "B"), list(rows)
    if found.rejudged:
        yield "Judged anew", ("Study", "Claim", "By earlier rules", "Now", "By rule"), found.rejudged
    main = [row for row in found.effects if row["main"]]
    if main and not found.identical:
        headings = ("Contrast", "Dataset", "Outcome", "A", "B", "B - A", "Pairs", "How")
        yield "Effects", headings, [_effect(row) for row in main]


def _effect(row: dict[str, Any]) -> tuple[str, ...]:
    def text(value: float | None, *limits: float | None) -> str:
        return effect_text(row["outcome"], row["scale"], value, *limits) or "-"

    return (
        contrast_text(row["arm"], row["reference"]),
        row["dataset"],
        outcome_text(row["outcome"]),
        text(row["a"]),
        text(row["b"]),
        row["note"] or text(row["difference"], row["low"], row["high"]),
        f"{row['n_a']}, {row['n_b']}",
        f"paired, {row['n']} in both" if row["how"] == "paired" else row["how"],
    )
