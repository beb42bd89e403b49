"""Writes a table as Parquet, CSV, Markdown and LaTeX beside each other, each file whole or not at all.

Parquet and CSV hold every column at full precision. Markdown and LaTeX are for reading: the table's main columns under their
headings, rounded, and at most ``MAX_ROWS`` rows; a last line says how many more there are.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from tabulate import tabulate

from analysis.words.columns import Column
from analysis.words.wording import effect_text, interval_text, level_text, number_text, outcome_text, p_text, size_text
from study.atomic import replacing
from study.errors import StorageError, UserError, nearest

FORMATS = ("parquet", "csv", "md", "tex")
MAX_ROWS = 200
# around a cell in bold until the text is whole, for the writer of latex escapes what is in a cell
_BOLD = ("\x02", "\x03")
# likewise before a cell that latex would read as an argument of the line break above it
_GUARD = "\x04"
# What Markdown, or the HTML in it, would not show as it stands: the start of a tag or an entity, a link, code, emphasis.
_MARKDOWN = re.compile(r"[\\|`*~]|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])|\](?=[(\[:])|(?<!\w)_|_(?!\w)")
# A text that a spreadsheet takes for a formula, and a number, which it may take for one.
_FORMULA, _NUMBER = r"^[=+\-@\t\r\n]", r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_BY_OUTCOME = ("effect", "size", "level")


class ReadableCell(NamedTuple):
    """One cell of a table as people read it."""

    text: str
    bold: bool = False


def write_table(
    table: pa.Table,
    folder: Path,
    name: str,
    columns: Sequence[Column] = (),
    formats: Sequence[str] = FORMATS,
    note: str = "",
) -> list[Path]:
    """Write ``folder/name.FORMAT`` for each format, each through a temporary file and a rename; return the paths.

    ``note`` is what a reader must know: a last line, in parquet the schema's ``note``; csv has no place for it.
    Raises ``UserError`` for an unknown format or when the folder cannot be written.
    """
    return [write_bytes(folder / f"{name}.{form}", render(table, form, columns, note)) for form in formats]


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all, and its folder where there is none; return ``path``.

    Raises ``UserError`` when it cannot be written.
    """
    try:
        with replacing(path, lasting=False) as partial:
            partial.write_bytes(data)
    except StorageError as error:
        raise UserError(f"cannot write {path}: {error.reason}") from None
    return path


def render(table: pa.Table, form: str, columns: Sequence[Column] = (), note: str = "") -> bytes:
    """The bytes of a file in one of ``FORMATS``. Without ``columns``, every column is a main column; ``note`` comes last."""
    if form not in FORMATS:
        raise UserError(f"unknown table format {form!r}{nearest(form, FORMATS)}")
    if form == "parquet":
        sink = io.BytesIO()
        if note:
            table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"note": note.encode()})
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        return sink.getvalue()
    if form == "csv":
        sink = io.BytesIO()
        pyarrow.csv.write_csv(_inert(_plain(table)), sink)
        return sink.getvalue()
    shown = list(columns) or [_column(field) for field in table.schema]
    rows = [[_marked(cell, form) for cell in row] for row in readable_rows(table.slice(0, MAX_ROWS), shown)]
    headings = [column.heading for column in shown]
    align = ["left" if column.kind in ("text", "outcome") else "right" for column in shown]
    style = "pipe" if form == "md" else "latex_booktabs"
    body = rows or [[""] * len(shown)]
    text = tabulate(body, headings, tablefmt=style, disable_numparse=True, colalign=align)
    if more := table.num_rows - len(rows):
        text += f"\n\n{more:,} more rows are in the parquet and csv files.\n"
    if note:
        text = f"{text.rstrip()}\n\n{markdown_text(note) if form == 'md' else _latex(note)}"
    text = text.replace(_GUARD, "{}")
    for mark, written in zip(_BOLD, ("**", "**") if form == "md" else (r"\textbf{", "}"), strict=True):
        text = text.replace(mark, written)
    return f"{text.rstrip()}\n".encode()


def _latex(text: str) -> str:
    """``text`` with LaTeX's special characters escaped, as ``tabulate`` does it in cells."""
    table = str(tabulate([[text]], tablefmt="latex_booktabs", disable_numparse=True))
    return table.splitlines()[2].removesuffix(r" \\")


def readable_rows(table: pa.Table, columns: Sequence[Column]) -> list[list[ReadableCell]]:
    """The cells of ``columns`` as people read them."""
    needed = [name for c in columns for name in (c.name, c.low, c.high, c.spread, c.bold) if name]
    needed += [name for c in columns if c.kind in _BY_OUTCOME for name in ("outcome", "scale")]
    rows = table.select(list(dict.fromkeys(needed))).to_pylist()
    return [[ReadableCell(_text(row, c) or c.missing, bool(c.bold and row[c.bold])) for c in columns] for row in rows]


def markdown_text(text: str) -> str:
    """``text`` so that Markdown shows it as it is, also in a table: no HTML, no link, no emphasis, no new column."""
    entities = {"<": "&lt;", "&": "&amp;"}
    return _MARKDOWN.sub(lambda found: entities.get(found[0], f"\\{found[0]}"), text)


def _marked(cell: ReadableCell, form: str) -> str:
    if form == "md":
        text = markdown_text(cell.text)
    else:
        text = f"{_GUARD}{cell.text}" if cell.text.startswith(("[", "*")) else cell.text
    return f"{_BOLD[0]}{text}{_BOLD[1]}" if cell.bold else text


def _text(row: dict[str, Any], column: Column) -> str:
    value = row[column.name]
    if column.kind == "effect":
        limits = [row[name] if name else None for name in (column.low, column.high)]
        return effect_text(row["outcome"], row["scale"], value, *limits)
    if column.kind == "size":
        return size_text(row["outcome"], row["scale"], value)
    if column.kind == "level":
        return level_text(row["outcome"], value)
    if column.kind == "outcome":
        return outcome_text(value)
    if column.kind == "percent":
        spread = row[column.spread] if column.spread else None
        if value is None or spread is None:
            return "" if value is None else f"{100 * value:.1f}%"
        return f"{100 * value:.2f} ± {100 * spread:.2f}%"
    if column.kind == "interval":
        return interval_text(value, row[column.low], row[column.high])
    if column.kind == "p":
        return p_text(value)
    if column.kind == "number" and not isinstance(value, int):
        return number_text(value)
    return "" if value is None else " ".join(str(value).split())


def _column(field: pa.Field) -> Column:
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    return Column(name=field.name, heading=field.name, kind="number" if is_number else "text")


def _inert(table: pa.Table) -> pa.Table:
    """Texts that a spreadsheet would run as a formula behind an apostrophe; numbers stay numbers.

    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            cells = table[field.name]
            formula = pc.and_not(pc.match_substring_regex(cells, _FORMULA), pc.match_substring_regex(cells, _NUMBER))
            quoted = pc.binary_join_element_wise(pa.scalar("'", field.type), cells, pa.scalar("", field.type))
            table = table.set_column(i, field, pc.if_else(pc.fill_null(formula, False), quoted, cells))
    return table


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary columns as plain strings: csv knows no others."""
    fields = [pa.field(f.name, f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))
