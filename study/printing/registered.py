"""Every registered part, as rows, and what is made of them: docs/levels.md and ``levels.json``, which ``levels`` reads."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from study import data, models, smoothness  # noqa: F401  imported for the parts they register
from study.planning import search  # noqa: F401  imported for the parts they register
from study.plugins import load_plugins
from study.printing.console import markdown_table
from study.registry import DATASETS, NAMED, Entry, Registry

REGENERATE = "python -m study.printing.levels"
# Modules of parts that are on the page: plug-ins that are installed here are not, partials belong to functools.
_OWN = ("study", "functools")


def registered(plugins: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """One row per part; ``extra_params`` is an expression in the channels C, where known.

    A dataset's has ``accuracy_floor`` beside it, that of a specification that names none. With the parts of installed
    plug-ins and of the modules ``plugins``. Raises ``UserError`` for an unknown module.
    """
    load_plugins(plugins, *([str(Path.cwd())] if plugins else []))
    return (_row(registry, entry) for registry in NAMED for entry in registry)


def own() -> list[dict[str, str]]:
    """The rows of this repository's parts."""
    return [_row(registry, entry) for registry in NAMED for entry in registry if _is_own(entry)]


def _row(registry: Registry[Any], entry: Entry[Any]) -> dict[str, str]:
    return {
        "kind": registry.kind,
        "name": entry.name,
        "formula": entry.formula,
        "extra_params": str(entry.traits.get("extra_params", "")),
        "source": entry.source,
        **({"accuracy_floor": _floor(entry)} if registry is DATASETS else {}),
    }


def _is_own(entry: Entry[Any]) -> bool:
    return str(getattr(entry.build, "__module__", "study")).startswith(_OWN)


def _floor(entry: Entry[Any]) -> str:
    """Of images of one's own only their loader, or their classes, can say."""
    return f"{entry.traits['accuracy_floor']:.4g}" if "accuracy_floor" in entry.traits else "by its data"


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
    parts = own()
    for registry in NAMED:
        there = [row for row in parts if row["kind"] == registry.kind]
        further = {
            "accuracy floor": [row.get("accuracy_floor", "") for row in there],
            "extra parameters": [f"`{row['extra_params']}`" if row["extra_params"] else "" for row in there],
        }
        shown = {heading: cells for heading, cells in further.items() if any(cells)}
        rows = [
            [f"`{row['name']}`", _cell(row["formula"]), *cells, row["source"]]
            for row, *cells in zip(there, *shown.values(), strict=True)
        ]
        lines += ["", f"## {registry.kind}", "", *markdown_table(["name", "formula", *shown, "source"], rows)]
    return "\n".join(lines) + "\n"


def _cell(formula: str) -> str:
    """Plain text within a Markdown table."""
    return formula.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")
