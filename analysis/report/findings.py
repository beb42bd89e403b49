"""The page of findings: published studies for a reader of the paper, in sentences that follow from numbers by rules."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from analysis.report.by_study import (
    DECIDED,
    LEGEND,
    Study,
    agreement,
    claim_table,
    claim_texts,
    comparison_text,
    effect_of,
    places,
    short_answer,
)
from analysis.report.evidence import MANY, failed_cells, failures, limits, matched, pooled, size_of, table, trust
from analysis.words.export import markdown_text
from analysis.words.rows import Row, Rows, distinct, grouped
from analysis.words.wording import listed, outcome_text, size_text


def page(studies: Sequence[Study], running: Sequence[str], formulas: Mapping[str, Mapping[str, str]], how: str) -> str:
    """Markdown. ``running``: names of studies that have not ended; ``how``: the command that makes the page anew.

    ``formulas``: factor -> level -> what it is.
    """
    lines = [
        "# Findings",
        "",
        "Ye et al. ([2106.15067](https://arxiv.org/abs/2106.15067)) say that multiplication of feature maps, not the weights "
        "of attention, is what makes attention help, and that it makes the learned landscape smoother. This page says what "
        f"the studies in [published/](../published) have found. `{how}` makes it from their tables: no number is typed "
        "by hand.",
        "",
        *state_lines(studies, running),
    ]
    if studies:
        lines += ["", *_names(studies, formulas)]
        for part in (_consistency, _claims, failures, matched, pooled, trust, limits):
            lines += ["", *part(studies)]
    lines += ["", *_larger()]
    return "\n".join(lines) + "\n"


def summary(studies: Sequence[Study], running: Sequence[str]) -> str:
    """What the project's front page shows: the state of the studies, and the table."""
    return "\n".join(state_lines(studies, running)) + "\n"


def state_lines(studies: Sequence[Study], running: Sequence[str]) -> Iterator[str]:
    """Which studies there are, the answer in short, how small the networks are, and the table of claims."""
    told = [f"{listed(_linked(study.name) for study in studies)} {_have(studies)} ended"] if studies else []
    told += [f"{listed(map(_linked, running))} {_have(running)} not"] if running else []
    state = f"{'; '.join(told) or 'No study is published yet'}."
    if not studies:
        yield state
        return
    yield f"**In short: {short_answer(studies)}.** {_often(studies)}"
    yield f"The networks are small: {'; '.join(dict.fromkeys(size_of(study) for study in studies))}. {state}"
    yield ""
    headings, rows = claim_table(studies, "**")
    yield from table(headings, rows, marked=True)
    yield ""
    yield LEGEND


def _often(studies: Sequence[Study]) -> str:
    """Which operators fail often: ``mul fails in 34 of 48 trainings on digits.``"""
    told: dict[str, list[str]] = {}
    for (arm, place), rows in grouped(failed_cells(studies), "arm", "place").items():
        failed, trained = (sum(row[name] for row in rows) for name in ("failed", "n_confirm"))
        if failed > MANY * trained:
            told.setdefault(arm, []).append(f"{failed} of {trained} trainings on {place}")
    arms = [f"`{arm}` fails in {listed(found)}" for arm, found in told.items()]
    return f"{'; '.join(arms) or 'No arm fails in more than one training of ten'}."


def _linked(name: str) -> str:
    """A study's name, linked where the page's own table of links says (``links``)."""
    return f"[{name}][{name}]"


def links(names: Iterable[str], folder: str) -> str:
    """Where the names of studies lead; ``folder``: that of all, as seen from the page."""
    return "".join(f"[{name}]: {folder}/{name}/README.md\n" for name in names)


def _have(items: Sequence[object]) -> str:
    return "has" if len(items) == 1 else "have"


def _names(studies: Sequence[Study], formulas: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """What the levels are that claims compare."""
    yield "## What the names mean"
    yield ""
    yield (
        "x: the shortcut (of attention: the feature map), F: the branch, a: the gate, in (0, 1), u = 2a - 1. All levels, "
        "with sources: [levels.md](levels.md)."
    )
    yield ""
    rows = []
    for factor, known in formulas.items():
        levels = dict.fromkeys(str(level) for study in studies for level in study.spec.levels_of(factor))
        rows += [[factor.replace("_", " "), level, known.get(level, "")] for level in levels if level != "none"]
    yield from table(("What", "Name", "Formula"), rows)


def _consistency(studies: Sequence[Study]) -> Iterator[str]:
    yield "## What is consistent, and what is not"
    yield ""
    if len(studies) == 1:
        yield "One study has ended, so nothing can agree or disagree yet. By claim:"
        yield ""
    for name, text in claim_texts(studies).items():
        yield f"- **{name}, {text}**: {agreement(studies, name) or 'not judged.'}"


def _claims(studies: Sequence[Study]) -> Iterator[str]:
    """Each claim on each study in a sentence, its comparisons, and what would overturn the verdict."""
    yield "## Claim by claim"
    columns = places(studies)
    for name, text in claim_texts(studies).items():
        yield ""
        yield f"### {name}: {text}"
        yield ""
        for study in studies:
            for dataset, (row, *_) in study.of(name).items():
                qualifier = f" ({row['qualifier']})" if row["qualifier"] else ""
                change = "To overturn it" if row["verdict"] in DECIDED else "To decide it"
                said, other = markdown_text(row["sentence"]), row["change"]
                yield (
                    f"- **{columns[study.name, dataset]}**{qualifier}. {said} *{change}:* "
                    f"{markdown_text(f'{other[:1].lower()}{other[1:]}')}"
                )
        parts = [
            (columns[study.name, dataset], row)
            for study in studies
            for dataset, rows in study.of(name, "claim_parts").items()
            for row in rows
        ]
        if len(parts) > 1:
            yield ""
            yield from table(
                ("Comparison", "Outcome", "Margin", *columns.values()), _by_comparison(parts, columns.values())
            )


def _by_comparison(parts: Sequence[tuple[str, Row]], columns: Iterable[str]) -> Iterator[list[str]]:
    """A comparison a row, a study a column: its effect and the verdict that it would have alone."""
    rows: Rows = [{**row, "place": place} for place, row in parts]
    for (_, _, outcome), same in grouped(rows, "arm", "reference", "outcome").items():
        margins = distinct(same, "margin")
        cells = {row["place"]: f"{row['verdict']}, {effect_of(row) or 'not estimable'}" for row in same}
        yield [
            comparison_text(same[0]),
            outcome_text(outcome),
            ", ".join(size_text(outcome, same[0]["scale"], margin) for margin in margins),
            *(cells.get(column, "") for column in columns),
        ]


def _larger() -> Iterator[str]:
    yield "## Run it larger"
    yield ""
    yield (
        "`fmm-study run cifar10` asks the same of deeper networks, with more operators and controls; `fmm-study plan cifar10` "
        "says first how many hours that takes where you are. `fmm-study report published/NAME` makes every number here again, "
        "without data; `fmm-study run published/NAME/specification.yaml` trains the study anew. [method.md](method.md) says "
        "how claims are judged."
    )
