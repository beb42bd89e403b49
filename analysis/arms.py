"""What a cell is called apart from its depth and dataset, so that one arm keeps its name, colour and marker everywhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.trials import setting_column
from search_spaces.spec import Spec

# Factors that a figure spreads over panels and lines instead of arms.
_CONTEXT = ("dataset", "depth")


def arm_name(spec: Spec, values: Mapping[str, Any]) -> str:
    """``mul``, ``add/se.static``: the levels of every factor but depth and dataset, attention with its form.

    ``values`` is a row of the trials table. Where nothing but depth and dataset varies, the name is that of the cell.
    """
    levels = {name: values[setting_column(name)] for name in spec.factor_names() if name not in _CONTEXT}
    form = levels.pop("attention_form", None)
    if levels.get("attention") == "none":
        del levels["attention"]
    elif form is not None:
        levels["attention"] = f"{levels.get('attention', 'attention')}.{form}"
    texts = [
        value if isinstance(value, str) else f"{name}={value:g}" for name, value in levels.items() if value is not None
    ]
    return "/".join(texts) or str(values["cell"])


def arm_columns(spec: Spec) -> list[str]:
    """Columns of the trials table that ``arm_name`` and ``context_name`` read."""
    return ["cell", *_CONTEXT, *map(setting_column, spec.factor_names())]


def context_name(values: Mapping[str, Any], *, dataset: bool = False) -> str:
    """``depth 8``, with ``dataset`` first where a study has several; empty where the network has no depth."""
    parts = [str(values["dataset"])] if dataset else []
    return ", ".join(parts + ([] if values["depth"] is None else [f"depth {values['depth']}"]))


def has_datasets(trials: pa.Table) -> bool:
    """Whether a table of trials holds more than one dataset."""
    return len(pc.unique(trials["dataset"])) > 1


def cell_heads(spec: Spec, trials: pa.Table) -> dict[str, dict[str, Any]]:
    """Cell -> what names it in a table: study, cell, dataset, arm, depth; in the order of the table of trials."""
    columns = list(dict.fromkeys(["cell", "dataset", "depth", *map(setting_column, spec.factor_names())]))
    cells = trials["cell"].combine_chunks().dictionary_encode()
    first = np.unique(cells.indices.to_numpy(zero_copy_only=False), return_index=True)[1]
    rows = trials.select(columns).take(pa.array(first, pa.int64())).to_pylist()
    shared = ("cell", "dataset", "depth")
    return {
        row["cell"]: {"study": spec.name, "arm": arm_name(spec, row), **{name: row[name] for name in shared}}
        for row in rows
    }
