"""Builds registered tables and writes them as files."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from analysis.inputs import Inputs
from analysis.words.columns import Column, table_of
from analysis.words.export import FORMATS, write_table
from study.registry import TABLES, discover


def table_names() -> list[str]:
    """Names of all registered tables."""
    discover("analysis.tables")
    return TABLES.names()


def build_table(inputs: Inputs, name: str) -> pa.Table:
    """One registered table, with the unit of every number. Raises ``UserError`` for an unknown name."""
    discover("analysis.tables")
    if name not in inputs.built:
        entry = TABLES[name]
        rows = entry.build(inputs)
        if not isinstance(rows, pa.Table):
            rows = [{"study": inputs.spec.name, **row} for row in rows]
        inputs.built[name] = table_of(
            rows, entry.traits["columns"], entry.traits.get("about", {}) | {"row": entry.traits.get("row", "")}
        )
    return inputs.built[name]


def build_tables(
    inputs: Inputs, folder: Path, names: Iterable[str] = (), formats: Iterable[str] = ()
) -> dict[str, list[Path]]:
    """Write registered tables (all, or those of ``names``) into ``folder``; return table name -> files.

    ``formats`` overrules each table's own. Raises ``UserError`` for an unknown table or format.
    """
    written, known = {}, table_names()
    for name in list(names) or known:
        traits = TABLES[name].traits
        chosen = list(formats) or traits.get("formats", FORMATS)
        table, note = build_table(inputs, name), inputs.amendment.words
        written[name] = write_table(table, folder, name, table_columns(name), chosen, note)
    return written


def table_columns(name: str) -> list[Column]:
    """The columns of a registered table that people read, in their order; empty for all."""
    known = {column.name: column for column in TABLES[name].traits["columns"]}
    return [known[name] for name in TABLES[name].traits.get("main", "").split()]
