"""Columns of tables, each declared once: name, type and unit for machines, heading and kind for readers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

DASH = "\u2013"  # what is planned and not there
FRACTION = "fraction of images"
OF_OUTCOME = "of the row's outcome"
OF_SCALE = "of the outcome, its logarithm where scale is log ratio"
_STRING = pa.string()
Kind = Literal["text", "number", "p", "interval", "effect", "size", "level", "outcome", "percent"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its name, type and unit, and how Markdown, LaTeX and the report show it.

    Kinds that need more than a value: ``interval`` shows the limits in columns ``low`` and ``high``. ``effect`` (a difference,
    with its interval), ``size`` (a margin) and ``level`` (a mean) are in the unit of the row's ``outcome`` and ``scale``.
    ``outcome`` is an outcome's name. ``percent`` is a fraction; ``spread`` names the column of its standard deviation.
    ``bold`` names a column of flags: cells in bold. ``missing`` stands for no value.
    """

    name: str
    type: pa.DataType = _STRING
    unit: str = ""
    heading: str = ""
    kind: Kind = "text"
    low: str = ""
    high: str = ""
    spread: str = ""
    bold: str = ""
    missing: str = ""


def text(name: str, heading: str = "", kind: Kind = "text") -> Column:
    """A column of strings."""
    return Column(name=name, heading=heading, kind=kind)


def texts(names: str) -> list[Column]:
    """Columns of strings that only parquet and csv hold, by space-separated names."""
    return [text(name) for name in names.split()]


def flag(name: str, heading: str = "") -> Column:
    """A column of booleans."""
    return Column(name=name, type=pa.bool_(), heading=heading)


def integer(name: str, unit: str, heading: str = "", missing: str = "") -> Column:
    """A column of whole numbers."""
    return Column(name=name, type=pa.int64(), unit=unit, heading=heading, kind="number", missing=missing)


def count(name: str, heading: str = "", missing: str = "") -> Column:
    """A column of counts."""
    return integer(name, "count", heading, missing)


def counts(names: str) -> list[Column]:
    """Columns of counts that only parquet and csv hold, by space-separated names."""
    return [count(name) for name in names.split()]


def number(name: str, unit: str, heading: str = "", kind: Kind = "number", **shown: str) -> Column:
    """A column of floating-point numbers; ``shown`` are further fields of ``Column``."""
    return Column(name=name, type=pa.float64(), unit=unit, heading=heading, kind=kind, **shown)


def floats(names: str, unit: str) -> list[Column]:
    """Columns of floating-point numbers in one unit that only parquet and csv hold, by space-separated names."""
    return [number(name, unit) for name in names.split()]


def p_value(name: str, heading: str = "") -> Column:
    """A column of p-values."""
    return number(name, "probability", heading, "p")


def spread_columns(unit: str, heading: str, *, prefix: str = "", spread_kind: Kind = "effect") -> list[Column]:
    """Columns of what ``analysis.stats.spread.spread`` gives: the mean with its interval, and the standard deviation."""
    low, high = f"{prefix}ci_low", f"{prefix}ci_high"
    return [
        number(f"{prefix}mean", unit, heading, "effect", low=low, high=high),
        number(f"{prefix}sd", unit, "Spread", spread_kind),
        *floats(f"{low} {high}", unit),
    ]


def tested_columns(heading: str, pairs: str = "Pairs") -> list[Column]:
    """Columns of what ``analysis.effects.paired.tested`` gives."""
    return [
        count("n_pairs", pairs),
        number("estimate", OF_OUTCOME, heading, "effect", low="ci_low", high="ci_high"),
        number("sd", OF_OUTCOME, "Spread", "effect"),
        *floats("ci_low ci_high", OF_OUTCOME),
        p_value("p_sign_flip", "p"),
    ]


_SHARED = {
    column.name: column
    for column in (
        *(text(name) for name in ("study", "scale")),
        text("cell", "Cell"),
        text("dataset", "Dataset"),
        text("arm", "Arm"),
        text("reference", "Reference"),
        text("stratum", "Stratum"),
        text("outcome", "Outcome", "outcome"),
        text("claim", "Claim"),
        text("verdict", "Verdict"),
        text("label", "Label"),
        text("note", "Note"),
        integer("depth", "layers", "Depth", DASH),
        integer("params", "trained parameters", "Trained parameters", DASH),
        integer("flops", "FLOPs an image", "FLOPs"),
        integer("block", "identifier", "Block"),
        integer("replicate", "identifier", "Replicate"),
        integer("number", "identifier", "Trial"),
        integer("epoch", "epochs", "Epoch"),
        count("n_pairs", "Pairs"),
        count("n_excluded", "Left out"),
        count("n_failures", "Failures"),
        count("n_failed", "Failed"),
        count("n_diverged", "Diverged"),
        count("n_blocks", "Blocks"),
        count("n_trials", "Trials"),
        *(count(name) for name in ("n_waiting", "n_unequal")),
        p_value("p_sign_flip", "p"),
        p_value("mcnemar_p", "McNemar p"),
        number("pairing_gain", "fraction of variance", "Pairing gain"),
    )
}


def shared(names: str) -> list[Column]:
    """Columns that many tables have, by space-separated names."""
    return [_SHARED[name] for name in names.split()]


def schema_of(columns: Iterable[Column], about: Mapping[str, str] | str = "") -> pa.Schema:
    """The Arrow schema of ``columns``, units in the fields' metadata; ``about`` is the table's own, or says what a row is."""
    fields = [pa.field(c.name, c.type, metadata={"unit": c.unit} if c.unit else None) for c in columns]
    told = {name: text for name, text in ({"row": about} if isinstance(about, str) else about).items() if text}
    return pa.schema(fields, metadata=told or None)


def table_of(
    rows: pa.Table | Iterable[Mapping[str, Any]], columns: Sequence[Column], about: Mapping[str, str] | str = ""
) -> pa.Table:
    """``rows`` as a table; one that is a table already stays as it is."""
    if isinstance(rows, pa.Table):
        return rows
    return pa.Table.from_pylist(list(rows), schema=schema_of(columns, about))
