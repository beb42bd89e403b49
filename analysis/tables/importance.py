"""The importance table (claim C1): by cell, layer and kind of importance, how well gates rank what they weigh."""

import re
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.inputs import Inputs
from analysis.trials.table import rows_of
from analysis.words.export import Column
from study.registry import TABLES

KINDS = ("zero", "mean", "taylor")
# of each measure of agreement: gate and importance, null, ceiling, control; Spearman's have the plain names
SPEARMAN = ("spearman", "spearman_null", "ceiling", "activation")
KENDALL = ("kendall", "kendall_null", "kendall_ceiling", "kendall_activation")
TOP = ("top10", "top10_null", "top10_ceiling", "top10_activation")
_MEASURED = (*SPEARMAN, *KENDALL, *TOP)
_LAYER = re.compile(rf"attention_importance_layer(\d+)_({'|'.join(_MEASURED)})_({'|'.join(KINDS)})")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("study", "cell", "dataset", "attention", "attention_form")),
        ("depth", pa.int64()),
        ("layer", pa.int64()),
        ("importance", pa.string()),
        ("n", pa.int64()),
        *((name, pa.float64()) for measure in _MEASURED for name in (measure, f"{measure}_sd")),
        ("n_not_converged", pa.int64()),
    ],
    metadata={
        "row": "one cell, attention layer (from the input) and importance: zero, mean or taylor; completed networks"
    },
)


def layer_rows(inputs: Inputs) -> list[dict[str, Any]]:
    """One row a confirmed, completed network, layer and importance, with all that was measured there."""
    columns: dict[tuple[int, str], dict[str, str]] = {}
    for name in inputs.trials.column_names:
        if found := _LAYER.fullmatch(name):
            layer, measure, kind = found.groups()
            columns.setdefault((int(layer), kind), {})[measure] = name
    shared = ("cell", "dataset", "attention", "attention_form", "depth", "replicate")
    rows = []
    for row in rows_of(inputs.trials, phase="confirm") if columns else []:
        if row["state"] != "completed":
            continue
        for (layer, kind), names in sorted(columns.items()):
            if row[names["spearman"]] is not None or row[f"{names['spearman']}_converged"] is not None:
                values = {measure: row[names[measure]] if measure in names else None for measure in _MEASURED}
                converged = bool(row[f"{names['spearman']}_converged"])
                head = {name: row[name] for name in shared}
                rows.append({**head, "layer": layer, "importance": kind, "converged": converged, **values})
    return rows


@TABLES.register(
    "importance",
    formula="attention against importance: by layer the agreement in rank, over units, of the mean gate with the loss that "
    "taking the unit out adds (Spearman, Kendall's tau-b, share of the top tenth in common); each with units shuffled, the "
    "noise ceiling, and the same for mean absolute activation; means over networks",
    source="https://arxiv.org/abs/2106.15067",
    title="Attention against importance, by layer",
    place=2.9,
    optional=True,
    columns=(
        Column(heading="Cell", name="cell"),
        Column(heading="Layer", name="layer", kind="number"),
        Column(heading="Importance", name="importance"),
        Column(heading="Networks", name="n", kind="number"),
        Column(heading="Spearman", name="spearman", kind="number"),
        Column(heading="Spread", name="spearman_sd", kind="number"),
        Column(heading="Ceiling", name="ceiling", kind="number"),
        Column(heading="Activation's", name="activation", kind="number"),
        Column(heading="Kendall", name="kendall", kind="number"),
        Column(heading="Ceiling", name="kendall_ceiling", kind="number"),
        Column(heading="Activation's", name="kendall_activation", kind="number"),
        Column(heading="Top tenth", name="top10", kind="number"),
        Column(heading="By chance", name="top10_null", kind="number"),
        Column(heading="Ceiling", name="top10_ceiling", kind="number"),
        Column(heading="Activation's", name="top10_activation", kind="number"),
        Column(heading="Not converged", name="n_not_converged", kind="number"),
    ),
)
def importance_table(inputs: Inputs) -> pa.Table:
    """One row a cell, layer and importance, in the order of the study; networks that did not converge are only counted."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in layer_rows(inputs):
        groups.setdefault((row["cell"], row["importance"], row["layer"]), []).append(row)
    return pa.Table.from_pylist([_row(inputs, rows) for rows in groups.values()], schema=SCHEMA)


def _row(inputs: Inputs, rows: list[dict[str, Any]]) -> dict[str, Any]:
    kept = [row for row in rows if row["converged"]]
    numbers: dict[str, Any] = {"n": len(kept), "n_not_converged": len(rows) - len(kept)}
    for measure in _MEASURED:
        values = np.array([row[measure] for row in kept if row[measure] is not None])
        numbers[measure] = float(values.mean()) if len(values) else None
        numbers[f"{measure}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else None
    head = {name: rows[0][name] for name in ("cell", "dataset", "attention", "attention_form", "depth")}
    return {
        "study": inputs.spec.name,
        **head,
        "layer": rows[0]["layer"],
        "importance": rows[0]["importance"],
        **numbers,
    }
