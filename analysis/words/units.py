"""https://arrow.apache.org/docs/format/Columnar.html -- what a table's numbers are counted in, in each field's metadata.

A table says the units that are its own; those that every table shares by name are given here, so that no numeric column
is left without one.
"""

import re

import pyarrow as pa

OF_OUTCOME = "of the row's outcome"
_SHARED = tuple(
    (re.compile(pattern), unit)
    for pattern, unit in (
        (r"n|n_\w+|\w+_failures|\w+_trainings", "count"),
        (r"block|look|search_block|replicate|number|seed|layer", "identifier"),
        (r"p_\w+|\w+_p|level|level_of_k", "probability"),
        (r"depth", "layers"),
        (r"width", "channels"),
        (r"params", "parameters"),
        (r"flops", "multiply-adds an image"),
        (r"epochs?|epochs_\w+", "epochs"),
        (r"\w*seconds", "s"),
        (r"\w+_df", "degrees of freedom"),
        (r"pairing_gain", "fraction of variance"),
        (r"share|share_\w+", "fraction"),
        (r"(spearman|kendall|ceiling|activation)\w*", "rank correlation"),
        (r"top10\w*", "fraction of units"),
        (r"dose", "of the declared dose"),
        (r"penalty", "weight of the penalty"),
        (r"value|estimate|margin|published|(ci|effect|mean|sd|found)(_\w+)?", OF_OUTCOME),
    )
)


def with_units(table: pa.Table) -> pa.Table:
    """``table`` with ``unit`` in the metadata of every numeric field whose unit is its own or shared by its name."""
    return table.cast(pa.schema([_field(field) for field in table.schema], metadata=table.schema.metadata))


def unit_in(field: pa.Field) -> str:
    """The unit in a field's metadata; empty where there is none."""
    return bytes((field.metadata or {}).get(b"unit", b"")).decode()


def is_number(field: pa.Field) -> bool:
    """Whether a field holds integers or floating point numbers."""
    return bool(pa.types.is_integer(field.type) or pa.types.is_floating(field.type))


def _field(field: pa.Field) -> pa.Field:
    if not is_number(field) or unit_in(field):
        return field
    unit = next((unit for pattern, unit in _SHARED if pattern.fullmatch(field.name)), "")
    return field.with_metadata({**(field.metadata or {}), "unit": unit}) if unit else field
