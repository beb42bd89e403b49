"""The published table: what others have reported for a cell, and what this study found there."""

from typing import Any

import numpy as np
import pyarrow as pa

from analysis.inputs import Inputs
from analysis.trials.table import rows_of
from analysis.words.export import Column
from search_spaces import Published
from study.registry import TABLES

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("study", "levels", "cell", "outcome")),
        *((name, pa.float64()) for name in ("published", "found", "found_sd", "found_least", "found_most")),
        ("n", pa.int64()),
        *((name, pa.string()) for name in ("note", "source")),
    ],
    metadata={"row": "one published result and one cell at its levels; completed and collapsed networks alike"},
)


@TABLES.register(
    "published",
    formula="published results beside those of this study at the same levels: mean and range over replicates; collapsed "
    "networks count, diverged ones have no accuracy",
    source="",
    title="Published results",
    place=1.95,
    optional=True,
    columns=(
        Column(heading="Levels", name="levels"),
        Column(heading="Outcome", name="outcome", kind="outcome"),
        Column(heading="Published", name="published", kind="number"),
        Column(heading="Found here", name="found", kind="number"),
        Column(heading="Spread", name="found_sd", kind="number"),
        Column(heading="Least", name="found_least", kind="number"),
        Column(heading="Most", name="found_most", kind="number"),
        Column(heading="Networks", name="n", kind="number"),
        Column(heading="Note", name="note"),
        Column(heading="Source", name="source"),
    ),
)
def published_table(inputs: Inputs) -> pa.Table:
    """One row a published result and cell that holds it, in the order of the spec; none where nothing is published."""
    confirmed = rows_of(inputs.trials, phase="confirm") if inputs.spec.published else []
    found = [row for known in inputs.spec.published for row in _rows(inputs, known, confirmed)]
    return pa.Table.from_pylist(found, schema=SCHEMA)


def _rows(inputs: Inputs, known: Published, confirmed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    at_levels = [row for row in confirmed if all(row.get(name) == level for name, level in known.levels.items())]
    cells = dict.fromkeys(row["cell"] for row in at_levels) or {"": None}
    return [_row(inputs, known, cell, [row for row in at_levels if row["cell"] == cell]) for cell in cells]


def _row(inputs: Inputs, known: Published, cell: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    held = np.array([row[known.outcome] for row in rows if row.get(known.outcome) is not None])
    return {
        "study": inputs.spec.name,
        "levels": " ".join(f"{name}={level}" for name, level in known.levels.items()),
        "cell": cell,
        "outcome": known.outcome,
        "published": known.value,
        "found": float(held.mean()) if len(held) else None,
        "found_sd": float(held.std(ddof=1)) if len(held) > 1 else None,
        "found_least": float(held.min()) if len(held) else None,
        "found_most": float(held.max()) if len(held) else None,
        "n": len(held),
        "note": known.note,
        "source": known.source,
    }
