"""One self-contained ``report.html``: the claims first, then tables, figures, where it comes from, how to do it again.

A table's or figure's ``place`` says where it stands: the chapter by its whole part, the order there by the rest.
"""

import base64
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa

from analysis.inputs import Inputs
from analysis.report.found import found
from analysis.report.headline import answer, control_word, facts, total_spent
from analysis.report.strips import HEIGHT, WIDTH, strips
from analysis.report.summary import Block, summary
from analysis.tables.build import build_table, table_columns
from analysis.words.columns import DASH, Column
from analysis.words.export import ReadableCell, readable_rows, write_bytes
from study.registry import FIGURES, TABLES, discover
from study.results.files import FIGURES_FOLDER, REPORT

_NUMBERS = ("number", "p", "interval", "effect", "size", "level", "percent")
# A table shows as many columns before it is asked for all, a name of at most as many columns first.
_MOST_COLUMNS, _MOST_NAMES = 8, 5
_ESTIMATES = ("effect", "percent", "interval", "level")
# p-values of something else than a row's estimate
_OTHER_PS = ("p_symmetry", "mcnemar_p")
_EFFECTS_PLACE = 1.2
_CHAPTERS = {1: "Effects", 2: "Smoothness, dose and attention", 3: "Pictures of landscapes", 4: "Controls and caveats"}
_CONTROLS = 4
SPECIFICATION = "specification"


# What the template shows: a chapter, or a table or figure in one.
_Shown = dict[str, Any]


def build_report(
    inputs: Inputs, root: Path, provenance: Mapping[str, Any], meanwhile: Callable[[], object] | None = None
) -> Path:
    """Write ``root/figures/*`` and ``root/report.html``; return the report's path.

    ``meanwhile`` is called while other processes draw. ``provenance`` is shown as it comes: text, or a mapping of texts
    (versions). Its entry ``specification`` is the YAML that runs the study again. Raises ``UserError`` when a file cannot be
    written.
    """
    # matplotlib takes a while to import, and tables need none of it
    from analysis.figures.build import build_figures, figure_data
    from analysis.figures.missing import missing

    written = build_figures(inputs, root / FIGURES_FOLDER, meanwhile=meanwhile)
    pictures = {name: next(p for p in paths if p.suffix == ".svg").read_bytes() for name, paths in written.items()}
    absent = {name: missing(inputs, figure_data(inputs, name)) for name in pictures}
    return write_bytes(root / REPORT, render_report(inputs, pictures, provenance, absent).encode())


def render_report(
    inputs: Inputs,
    pictures: Mapping[str, bytes],
    provenance: Mapping[str, Any],
    absent: Mapping[str, str] | None = None,
) -> str:
    """The report as HTML; ``pictures`` maps a registered figure to its SVG, ``absent`` to who is missing from it.

    Nothing is loaded from elsewhere.
    """
    spec = inputs.spec
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_packaged("report.html.j2"))
    script = _packaged("report.js")
    return template.render(
        spec=spec,
        title=spec.title or spec.name,
        answer=answer(inputs.findings),
        found=found(inputs),
        claims=inputs.findings,
        strips={(judgement.name, judgement.dataset): strips(judgement) for judgement in inputs.judgements},
        drawing=(WIDTH, HEIGHT),
        facts=facts(inputs),
        control=control_word(inputs),
        cost=total_spent(inputs),
        chapters=_chapters(inputs, pictures, absent or {}),
        files=[(entry.name, entry.formula) for entry in TABLES],
        provenance={name: value for name, value in provenance.items() if name != SPECIFICATION},
        specification=provenance.get(SPECIFICATION, ""),
        level=f"{1 - spec.alpha:.0%}",
        script=script,
        # a browser runs this script and no other, and loads nothing
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _packaged(name: str) -> str:
    return (resources.files("analysis.report") / name).read_text(encoding="utf-8")


def _chapters(inputs: Inputs, pictures: Mapping[str, bytes], absent: Mapping[str, str]) -> list[_Shown]:
    """Chapters that have something in them: the effects as ``run`` prints them, titled tables, ``pictures``."""
    told = summary(inputs)
    drawn = [_picture(name, svg, absent.get(name, "")) for name, svg in pictures.items()]
    items = [_effects(told.effects), *_tables(inputs), *drawn]
    chapters = []
    for number, title in _CHAPTERS.items():
        # a place that is in no chapter is in the last
        mine = [i for i in items if (int(i["place"]) if int(i["place"]) in _CHAPTERS else _CONTROLS) == number]
        notes = told.notes if number == _CONTROLS else []
        if mine or notes:
            mine.sort(key=lambda item: item["place"])
            chapters.append({"anchor": f"chapter-{number}", "title": title, "notes": notes, "items": mine})
    return chapters


def _picture(name: str, svg: bytes, absent: str) -> _Shown:
    discover("analysis.figures")
    traits = FIGURES[name].traits
    return {
        "name": name,
        "title": traits["title"],
        "caption": f"{FIGURES[name].formula} {absent}".rstrip(),
        # a figure that says no place comes last
        "place": traits.get("place", _CONTROLS + 0.99),
        "address": f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}",
    }


def _tables(inputs: Inputs) -> Iterator[_Shown]:
    """Every table whose registration gives it a ``title``."""
    discover("analysis.tables")
    for entry in TABLES:
        if "title" not in entry.traits:
            continue
        columns = table_columns(entry.name)
        table = build_table(inputs, entry.name)
        shown = entry.traits["shown"](inputs, table) if "shown" in entry.traits else table
        rows = readable_rows(shown, columns)
        if not rows and not entry.traits.get("always"):
            continue
        kept, same = _arranged(columns, rows)
        yield {
            "name": entry.name,
            "title": entry.traits["title"],
            "caption": entry.formula,
            "source": entry.source,
            "place": entry.traits["place"],
            "num_rows": len(rows),
            "same": same,
            "most": _MOST_COLUMNS,
            "headings": [(columns[i].heading, columns[i].kind in _NUMBERS) for i in kept],
            "groups": [("", [[row[i] for i in kept] for row in rows])],
        }


def _arranged(columns: Sequence[Column], rows: Sequence[Sequence[ReadableCell]]) -> tuple[list[int], dict[str, str]]:
    """Places of the columns that say something: a row's name first, its estimate and p beside it, then the others.

    Of a wide table what all rows share is taken out, heading -> text, to be said once.
    """
    kept = [i for i in range(len(columns)) if not rows or any(row[i].text not in ("", DASH) for row in rows)]
    shared = {}
    if len(kept) > _MOST_COLUMNS and len(rows) > 1:
        texts = {i: {row[i].text for row in rows} for i in kept if columns[i].kind in ("text", "outcome", "number")}
        shared = {i: held.pop() for i, held in texts.items() if len(held) == 1}
    kept = [i for i in kept if i not in shared]
    names = list(itertools.takewhile(lambda i: _is_name(columns[i]), kept))[:_MOST_NAMES]
    estimates = sorted((i for i in kept if columns[i].kind in _ESTIMATES), key=lambda i: columns[i].kind == "percent")[
        :1
    ]
    ps = [i for i in kept if columns[i].kind == "p" and columns[i].name not in _OTHER_PS][:1]
    return list(dict.fromkeys([*names, *estimates, *ps, *kept])), {columns[i].heading: t for i, t in shared.items()}


def _is_name(column: Column) -> bool:
    """Whether it can be part of a row's name: a word, a depth, an epoch, no count."""
    return column.kind in ("text", "outcome") or (
        column.kind == "number" and pa.types.is_integer(column.type) and column.unit != "count"
    )


def _effects(found: Block) -> _Shown:
    # the estimate and its p stand beside the name; the terminal ends a line with them
    last = ("Claim", "Pairs")
    order = sorted(range(len(found.headings)), key=lambda i: found.headings[i] in last)
    return {
        "name": "main_effects",
        "title": "Main effects",
        "caption": "arm minus reference: accuracy for every contrast, claimed outcomes for the claims' own; all outcomes are "
        "in tables/effects",
        "source": "",
        "place": _EFFECTS_PLACE,
        "num_rows": sum(len(rows) for _, rows in found.contrasts),
        "same": {},
        "most": _MOST_COLUMNS,
        "headings": [(found.headings[i], found.headings[i] in ("Pairs", "p")) for i in order],
        "groups": [
            (heading, [[ReadableCell(row[i]) for i in order] for row in rows]) for heading, rows in found.contrasts
        ],
    }
