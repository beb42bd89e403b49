"""One self-contained ``report.html``: the claims first, then tables, figures, where it comes from, how to do it again."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from analysis.claim_words import qualifier
from analysis.export import text_rows, write_bytes
from analysis.headline import control_word, facts, total_spent
from analysis.summary import summary
from analysis.tables import Inputs, build_table, table_columns
from study.registry import FIGURES, TABLES, discover

_NUMBERS = ("number", "p", "interval", "effect", "size", "level", "percent")
_EFFECTS_PLACE = 2
SPECIFICATION = "specification"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table as people read it: headings with whether they hold numbers, and rows of text in groups with a heading."""

    title: str
    caption: str
    source: str = ""
    place: float
    headings: list[tuple[str, bool]]
    groups: list[tuple[str, list[list[str]]]]
    notes: list[str] = field(default_factory=list)


def build_report(inputs: Inputs, root: Path, provenance: Mapping[str, Any]) -> Path:
    """Write ``root/figures/*`` and ``root/report.html``; return the report's path.

    ``provenance`` is shown as it comes: text, or a mapping of texts (versions). Its entry ``specification`` is the YAML
    that runs the study again. Raises ``UserError`` when a file cannot be written.
    """
    # matplotlib takes a while to import, and tables need none of it
    from analysis.figures.build import build_figures

    written = build_figures(inputs, root / "figures")
    pictures = {name: next(p for p in paths if p.suffix == ".svg").read_bytes() for name, paths in written.items()}
    return write_bytes(root / "report.html", render_report(inputs, pictures, provenance).encode())


def render_report(inputs: Inputs, pictures: Mapping[str, bytes], provenance: Mapping[str, Any]) -> str:
    """The report as HTML; ``pictures`` maps a registered figure to its SVG. Nothing is loaded from elsewhere."""
    spec = inputs.spec
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((resources.files("analysis") / "report.html.j2").read_text(encoding="utf-8"))
    figures = [
        {
            "name": name,
            "title": FIGURES[name].traits["title"],
            "caption": FIGURES[name].formula,
            "picture": f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}",
        }
        for name, svg in pictures.items()
    ]
    return template.render(
        spec=spec,
        title=spec.title or spec.name,
        qualifier="; ".join(filter(None, [qualifier(spec), inputs.amendment.words])),
        claims=inputs.findings,
        facts=facts(inputs),
        control=control_word(inputs),
        cost=total_spent(inputs),
        tables=_sections(inputs),
        figures=figures,
        files=[(entry.name, entry.formula) for entry in TABLES],
        provenance={name: value for name, value in provenance.items() if name != SPECIFICATION},
        specification=provenance.get(SPECIFICATION, ""),
        level=f"{1 - spec.alpha:.0%}",
    )


def _sections(inputs: Inputs) -> list[Section]:
    """The main effects as ``run`` prints them, and every table whose registration gives it a ``title``."""
    discover("analysis")
    sections = [_effects(inputs)]
    for entry in TABLES:
        if "title" not in entry.traits:
            continue
        columns = table_columns(entry.name)
        table = build_table(inputs, entry.name)
        shown = entry.traits["shown"](inputs, table) if "shown" in entry.traits else table
        rows = text_rows(shown, columns)
        if not rows and entry.traits.get("optional"):
            continue
        # a column without a word in it says nothing
        kept = [i for i in range(len(columns)) if not rows or any(row[i] for row in rows)]
        sections.append(
            Section(
                title=entry.traits["title"],
                caption=entry.formula,
                source=entry.source,
                place=entry.traits["place"],
                headings=[(columns[i].heading, columns[i].kind in _NUMBERS) for i in kept],
                groups=[("", [[row[i] for i in kept] for row in rows])],
            )
        )
    return sorted(sections, key=lambda section: section.place)


def _effects(inputs: Inputs) -> Section:
    found = summary(inputs.spec, inputs.effects, inputs.findings, inputs.assay, inputs.amendment.words)
    return Section(
        title="Main effects",
        caption="arm minus reference: accuracy for every contrast, claimed outcomes for the claims' own; all outcomes are in "
        "tables/effects",
        place=_EFFECTS_PLACE,
        headings=[(heading, heading in ("Pairs", "p")) for heading in found.headings],
        groups=[(block.heading, block.rows) for block in found.blocks],
        notes=found.notes,
    )
