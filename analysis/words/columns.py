"""Columns of tables, each declared once: name, type, unit and meaning for machines, heading and kind for readers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from study.schema import field_metadata

DASH = "\u2013"  # what is planned and not there
OF_OUTCOME = "of the row's outcome"
OF_SCALE = "of the outcome, its logarithm where scale is log ratio"
_STRING = pa.string()
Kind = Literal["text", "number", "p", "interval", "effect", "size", "level", "outcome", "percent"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its name, type, unit and meaning, and how Markdown, LaTeX and the report show it.

    Kinds that need more than a value: ``interval`` shows the limits in columns ``low`` and ``high``. ``effect`` (a difference,
    with its interval), ``size`` (a margin) and ``level`` (a mean) are in the unit of the row's ``outcome`` and ``scale``.
    ``outcome`` is an outcome's name. ``percent`` is a fraction; ``spread`` names the column of its standard deviation.
    ``bold`` names a column of flags: cells in bold. ``missing`` stands for no value. ``statistic`` is what measured it.
    """

    name: str
    type: pa.DataType = _STRING
    unit: str = ""
    meaning: str = ""
    statistic: str = ""
    heading: str = ""
    kind: Kind = "text"
    low: str = ""
    high: str = ""
    spread: str = ""
    bold: str = ""
    missing: str = ""

    @property
    def field(self) -> pa.Field:
        """The field of an Arrow schema; its metadata tell description, unit and statistic."""
        told = field_metadata(meaning=self.meaning, unit=self.unit, statistic=self.statistic)
        return pa.field(self.name, self.type, metadata=told or None)


# Several columns at once: their names, apart by spaces, or with the meaning of each.
Names = str | Mapping[str, str]
# what these names mean in every table
_MEANINGS = {
    "ci_low": "lower limit of the mean's interval at 1 - alpha, by sign flips",
    "ci_high": "upper limit of the mean's interval at 1 - alpha, by sign flips",
    "t_low": "lower limit of the mean's interval at 1 - alpha, by Student's t",
    "t_high": "upper limit of the mean's interval at 1 - alpha, by Student's t",
    "images_low": "lower limit of the interval that counts replicates and test images as drawn at random",
    "images_high": "upper limit of the interval that counts replicates and test images as drawn at random",
    "sd": "standard deviation of what the mean is over",
    "sd_difference": "standard deviation of the differences over replicates",
}


def text(name: str, heading: str = "", kind: Kind = "text", *, meaning: str = "") -> Column:
    """A column of strings."""
    return Column(name=name, meaning=meaning, heading=heading, kind=kind)


def texts(names: Names) -> list[Column]:
    """Columns of strings that only parquet and csv hold."""
    return [text(name, meaning=meaning) for name, meaning in _named(names)]


def flag(name: str, heading: str = "", *, meaning: str = "") -> Column:
    """A column of booleans."""
    return Column(name=name, type=pa.bool_(), meaning=meaning, heading=heading)


def integer(name: str, unit: str, heading: str = "", missing: str = "", *, meaning: str = "") -> Column:
    """A column of whole numbers."""
    return Column(
        name=name, type=pa.int64(), unit=unit, meaning=meaning, heading=heading, kind="number", missing=missing
    )


def count(name: str, heading: str = "", missing: str = "", *, meaning: str = "") -> Column:
    """A column of counts."""
    return integer(name, "count", heading, missing, meaning=meaning)


def counts(names: Names) -> list[Column]:
    """Columns of counts that only parquet and csv hold."""
    return [count(name, meaning=meaning) for name, meaning in _named(names)]


def number(
    name: str, unit: str, heading: str = "", kind: Kind = "number", *, meaning: str = "", **shown: str
) -> Column:
    """A column of floating-point numbers; ``shown`` are further fields of ``Column``."""
    meaning = meaning or _MEANINGS.get(name, "")
    return Column(name=name, type=pa.float64(), unit=unit, meaning=meaning, heading=heading, kind=kind, **shown)


def floats(names: Names, unit: str) -> list[Column]:
    """Columns of floating-point numbers in one unit that only parquet and csv hold."""
    return [number(name, unit, meaning=meaning) for name, meaning in _named(names)]


def p_value(name: str, heading: str = "", *, meaning: str = "") -> Column:
    """A column of p-values."""
    return number(name, "probability", heading, "p", meaning=meaning)


def _named(names: Names) -> Iterable[tuple[str, str]]:
    return [(name, "") for name in names.split()] if isinstance(names, str) else names.items()


def spread_columns(
    unit: str, heading: str, *, meaning: str, prefix: str = "", spread_kind: Kind = "effect"
) -> list[Column]:
    """Columns of what ``analysis.stats.spread.spread`` gives: the mean with its interval, and the standard deviation."""
    low, high = f"{prefix}ci_low", f"{prefix}ci_high"
    limits = {f"{prefix}{name}": _MEANINGS[name] for name in ("ci_low", "ci_high")}
    return [
        number(f"{prefix}mean", unit, heading, "effect", meaning=meaning, low=low, high=high),
        number(f"{prefix}sd", unit, "Spread", spread_kind, meaning=_MEANINGS["sd"]),
        *floats(limits, unit),
    ]


def tested_columns(heading: str, pairs: str = "Pairs", *, meaning: str) -> list[Column]:
    """Columns of what ``analysis.effects.paired.tested`` gives."""
    return [
        count("n_pairs", pairs, meaning="replicates that count"),
        number("estimate", OF_OUTCOME, heading, "effect", meaning=meaning, low="ci_low", high="ci_high"),
        number("sd", OF_OUTCOME, "Spread", "effect"),
        *floats("ci_low ci_high", OF_OUTCOME),
        p_value("p_sign_flip", "p", meaning=SIGN_FLIP),
    ]


SIGN_FLIP = "two-sided p of the exact sign-flip test that the mean is zero, not adjusted"
_SHARED = {
    column.name: column
    for column in (
        text("study", meaning="the study's name"),
        text(
            "scale",
            meaning="how two values are subtracted: difference, log ratio (of logarithms), level (one value alone)",
        ),
        text("cell", "Cell", meaning="one combination of levels, one from each factor"),
        text("dataset", "Dataset", meaning="the dataset trained and tested on"),
        text(
            "arm",
            "Arm",
            meaning="levels of the networks that are judged; in tables of cells, the cell but for dataset and depth",
        ),
        text("reference", "Reference", meaning="levels of the networks that the arm is compared with"),
        text(
            "stratum", "Stratum", meaning="levels of the other factors that both sides share; all: averaged over them"
        ),
        text("outcome", "Outcome", "outcome", meaning="the column of trials that is read"),
        text("claim", "Claim", meaning="the claim that asks; empty: none"),
        text("verdict", "Verdict", meaning="supported, refuted or undecided"),
        text("label", "Label", meaning="what qualifies the row: exploratory, a demonstration, one search block"),
        text("note", "Note", meaning="what was left out, and what forbids a verdict"),
        integer("depth", "layers", "Depth", DASH, meaning="the network's number of layers, as its paper counts them"),
        integer("params", "trained parameters", "Trained parameters", DASH, meaning="parameters that are trained"),
        integer("flops", "FLOPs an image", "FLOPs", meaning="of one forward pass; a multiply-add is two"),
        integer("block", "identifier", "Block", meaning="independent repetition with its own split and searches"),
        integer(
            "replicate",
            "identifier",
            "Replicate",
            meaning="confirmed training; replicate r trains the winner of block r",
        ),
        integer(
            "number",
            "identifier",
            "Trial",
            meaning="number of the trial in its search; of a confirmed training, of the winner",
        ),
        integer("epoch", "epochs", "Epoch", meaning="epochs trained so far"),
        count("n_pairs", "Pairs", meaning="pairs of replicates that count"),
        count("n_excluded", "Left out", meaning="pairs begun that do not count"),
        count("n_failures", "Failures", meaning="networks that collapsed or diverged"),
        count("n_failed", "Failed", meaning="networks that ended without an outcome"),
        count("n_diverged", "Diverged", meaning="trainings that ended with NaN, Inf or an exploding loss"),
        count("n_blocks", "Blocks", meaning="blocks that count"),
        count("n_trials", "Trials", meaning="search trials that count"),
        count("n_waiting", meaning="pairs planned that have not run yet"),
        count("n_unequal", meaning="pairs with unequal budgets, which do not count"),
        p_value("p_sign_flip", "p", meaning=SIGN_FLIP),
        p_value(
            "mcnemar_p", "McNemar p", meaning="exact McNemar test that both sides fail as often; null where none fails"
        ),
        number(
            "pairing_gain",
            "fraction of variance",
            "Pairing gain",
            meaning="1 - Var(difference) / (Var(arm) + Var(reference)): what pairing saves",
        ),
    )
}


def shared(names: str) -> list[Column]:
    """Columns that many tables have, by space-separated names."""
    return [_SHARED[name] for name in names.split()]


def schema_of(columns: Iterable[Column], about: Mapping[str, str] | str = "") -> pa.Schema:
    """The Arrow schema of ``columns`` (``Column.field``); ``about`` is the table's own metadata, or says what a row is."""
    fields = [column.field for column in columns]
    told = {name: text for name, text in ({"row": about} if isinstance(about, str) else about).items() if text}
    return pa.schema(fields, metadata=told or None)


def table_of(
    rows: pa.Table | Iterable[Mapping[str, Any]], columns: Sequence[Column], about: Mapping[str, str] | str = ""
) -> pa.Table:
    """``rows`` as a table; one that is a table already stays as it is."""
    if isinstance(rows, pa.Table):
        return rows
    return pa.Table.from_pylist(list(rows), schema=schema_of(columns, about))
