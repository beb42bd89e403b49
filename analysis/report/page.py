"""One self-contained ``report.html``: the claims first, then tables, figures, where it comes from, how to do it again.

A table's or figure's ``place`` says where it stands: the chapter by its whole part, the order there by the rest.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from analysis.inputs import Inputs
from analysis.report.headline import answer, control_word, facts, total_spent
from analysis.report.summary import Block, summary
from analysis.tables.build import build_table, table_columns
from analysis.words.export import ReadableCell, readable_rows, write_bytes
from study.registry import FIGURES, TABLES, discover
from study.results.files import FIGURES_FOLDER, REPORT

_NUMBERS = ("number", "p", "interval", "effect", "size", "level", "percent")
_EFFECTS_PLACE = 1.2
_CHAPTERS = {1: "Effects", 2: "Smoothness, dose and attention", 3: "Pictures of landscapes", 4: "Controls and caveats"}
_CONTROLS = 4
SPECIFICATION = "specification"


# What the template shows: a chapter, or a table or figure in one.
_Shown = dict[str, Any]


def build_report(inputs: Inputs, root: Path, provenance: Mapping[str, Any]) -> Path:
    """Write ``root/figures/*`` and ``root/report.html``; return the report's path.

    ``provenance`` is shown as it comes: text, or a mapping of texts (versions). Its entry ``specification`` is the YAML
    that runs the study again. Raises ``UserError`` when a file cannot be written.
    """
    # matplotlib takes a while to import, and tables need none of it
    from analysis.figures.build import build_figures

    written = build_figures(inputs, root / FIGURES_FOLDER)
    pictures = {name: next(p for p in paths if p.suffix == ".svg").read_bytes() for name, paths in written.items()}
    return write_bytes(root / REPORT, render_report(inputs, pictures, provenance).encode())


def render_report(inputs: Inputs, pictures: Mapping[str, bytes], provenance: Mapping[str, Any]) -> str:
    """The report as HTML; ``pictures`` maps a registered figure to its SVG. Nothing is loaded from elsewhere."""
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
        claims=inputs.findings,
        facts=facts(inputs),
        control=control_word(inputs),
        cost=total_spent(inputs),
        chapters=_chapters(inputs, pictures),
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


def _chapters(inputs: Inputs, pictures: Mapping[str, bytes]) -> list[_Shown]:
    """Chapters that have something in them: the effects as ``run`` prints them, titled tables, ``pictures``."""
    found = summary(inputs)
    items = [_effects(found.effects), *_tables(inputs), *(_picture(name, svg) for name, svg in pictures.items())]
    chapters = []
    for number, title in _CHAPTERS.items():
        # a place that is in no chapter is in the last
        mine = [i for i in items if (int(i["place"]) if int(i["place"]) in _CHAPTERS else _CONTROLS) == number]
        notes = found.notes if number == _CONTROLS else []
        if mine or notes:
            mine.sort(key=lambda item: item["place"])
            chapters.append({"anchor": f"chapter-{number}", "title": title, "notes": notes, "items": mine})
    return chapters


def _picture(name: str, svg: bytes) -> _Shown:
    discover("analysis.figures")
    traits = FIGURES[name].traits
    return {
        "name": name,
        "title": traits["title"],
        "caption": FIGURES[name].formula,
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
        # a column without a word in it says nothing
        kept = [i for i in range(len(columns)) if not rows or any(row[i].text for row in rows)]
        yield {
            "name": entry.name,
            "title": entry.traits["title"],
            "caption": entry.formula,
            "source": entry.source,
            "place": entry.traits["place"],
            "num_rows": len(rows),
            "headings": [(columns[i].heading, columns[i].kind in _NUMBERS) for i in kept],
            "groups": [("", [[row[i] for i in kept] for row in rows])],
        }


def _effects(found: Block) -> _Shown:
    return {
        "name": "main_effects",
        "title": "Main effects",
        "caption": "arm minus reference: accuracy for every contrast, claimed outcomes for the claims' own; all outcomes are "
        "in tables/effects",
        "source": "",
        "place": _EFFECTS_PLACE,
        "num_rows": sum(len(rows) for _, rows in found.contrasts),
        "headings": [(heading, heading in ("Pairs", "p")) for heading in found.headings],
        "groups": [
            (heading, [[ReadableCell(text) for text in row] for row in rows]) for heading, rows in found.contrasts
        ],
    }
