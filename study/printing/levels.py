"""Every registered part, which is what a specification may name: kind, name, formula, extra parameters, source."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from study import data, models, smoothness  # noqa: F401  imported for the parts they register
from study.errors import UserError, nearest
from study.planning import search  # noqa: F401  imported for the parts they register
from study.plugins import load_plugins
from study.printing.console import markdown_table, print_table
from study.registry import DATASETS, NAMED, Entry

REGENERATE = "python -m study.printing.levels"
# Modules of parts that are on the page: plug-ins that are installed here are not, partials belong to functools.
_OWN = ("study", "functools")
_HEADINGS = {"extra_params": "extra parameters", "accuracy_floor": "accuracy floor"}


def levels(kind: str | None = None, plugins: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """One row per part of one ``kind`` or of all; ``extra_params`` is an expression in the channels C, where known.

    A dataset's has ``accuracy_floor`` beside it, that of a specification that names none.

    With the parts of installed plug-ins and of the modules ``plugins``. Raises ``UserError`` for an unknown kind or module.
    """
    load_plugins(plugins, *([str(Path.cwd())] if plugins else []))
    known = {registry.kind: registry for registry in NAMED}
    if kind is not None and kind not in known:
        raise UserError(f"unknown kind {kind!r}{nearest(kind, [*known, 'outcome'])}")
    for registry in NAMED if kind is None else (known[kind],):
        for entry in registry:
            yield {
                "kind": registry.kind,
                "name": entry.name,
                "formula": entry.formula,
                "extra_params": str(entry.traits.get("extra_params", "")),
                "source": entry.source,
                **({"accuracy_floor": _floor(entry)} if registry is DATASETS else {}),
            }


def _floor(entry: Entry[Any]) -> str:
    """Of images of one's own only their loader, or their classes, can say."""
    return f"{entry.traits['accuracy_floor']:.4g}" if "accuracy_floor" in entry.traits else "by its data"


def print_levels(rows: Sequence[Mapping[str, str]], console: Console) -> None:
    """Print rows of ``levels``, one table per kind."""
    for kind in dict.fromkeys(row["kind"] for row in rows):
        extra = "accuracy_floor" if kind == DATASETS.kind else "extra_params"
        cells = [(row["name"], row["formula"], row[extra], row["source"]) for row in rows if row["kind"] == kind]
        print_table(console, ("name", "formula", _HEADINGS[extra], "source"), cells, title=kind, num_left=4)


def markdown() -> str:
    """The page ``docs/levels.md``: one table per kind, of the parts of this repository."""
    lines = [
        "# Levels: what a specification may name",
        "",
        f"Made from the registry by `{REGENERATE}`. C is a block's number of channels. A dataset's accuracy floor is that",
        "of a specification that names none (`accuracy_floor`).",
        "",
        "Merge operators named `authors_<row>` are rows of the authors' public notes, their norms clamped where theirs are.",
        "Others with source 2106.15067 are from that paper or made after it; one that is a row says so in its formula.",
    ]
    for registry in NAMED:
        own = [entry for entry in registry if str(getattr(entry.build, "__module__", "study")).startswith(_OWN)]
        counted = any("extra_params" in entry.traits for entry in own)
        headings = ["name", "formula", *(["extra parameters"] if counted else []), "source"]
        headings[2:2] = ["accuracy floor"] if registry is DATASETS else []
        rows = []
        for entry in own:
            extra = [f"`{entry.traits['extra_params']}`" if "extra_params" in entry.traits else ""] if counted else []
            extra += [_floor(entry)] if registry is DATASETS else []
            rows.append([f"`{entry.name}`", _cell(entry.formula), *extra, entry.source])
        lines += ["", f"## {registry.kind}", "", *markdown_table(headings, rows)]
    return "\n".join(lines) + "\n"


def _cell(formula: str) -> str:
    """Plain text within a Markdown table."""
    return formula.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


if __name__ == "__main__":
    (Path(__file__).parents[2] / "docs" / "levels.md").write_text(markdown())
