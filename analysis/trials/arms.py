"""What a cell is called apart from its depth and dataset, so that one arm keeps its name, colour and marker everywhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.trials.records import agrees
from analysis.trials.table import setting_column
from search_spaces import Levels, Spec

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


def context_name(values: Mapping[str, Any], *, dataset: bool = False) -> str:
    """``depth 8``, with ``dataset`` first where a study has several; empty where the network has no depth."""
    parts = [str(values["dataset"])] if dataset else []
    return ", ".join(parts + ([] if values["depth"] is None else [f"depth {values['depth']}"]))


def planned_cells(spec: Spec, trials: pa.Table) -> list[dict[str, Any]]:
    """What names each cell that the study plans, as ``cell_heads`` does, also one that has no results yet; other cells last.

    ``levels`` maps each factor to its level. A joint search plans no cells: those with results alone.
    """
    levels_of = {
        row["cell"]: {name: row[setting_column(name)] for name in spec.factor_names()}
        for row in _first_rows(spec, trials)
    }
    known = {cell: {**head, "levels": levels_of[cell]} for cell, head in cell_heads(spec, trials).items()}
    heads: list[dict[str, Any]] = []
    waiting = dict(known)
    for levels in () if spec.joint else spec.cells():
        cell = next((cell for cell in waiting if agrees(levels_of[cell], levels)), None)
        heads.append(_awaited(spec, levels) if cell is None else waiting.pop(cell))
    return heads + list(waiting.values())


def _awaited(spec: Spec, levels: Levels) -> dict[str, Any]:
    """A cell that has no results, called as the plan calls it wherever its levels tell."""
    named = dict.fromkeys(spec.factor_names()) | levels
    dataset, depth = (levels.get(name, spec.fixed.get(name)) for name in _CONTEXT)
    arm = arm_name(spec, {"cell": "", **{setting_column(name): level for name, level in named.items()}})
    cell = "/".join(str(part) for part in (dataset, None if depth is None else f"d{depth}", arm) if part)
    return {"study": spec.name, "arm": arm or cell, "cell": cell, "dataset": dataset, "depth": depth, "levels": named}


def cell_heads(spec: Spec, trials: pa.Table) -> dict[str, dict[str, Any]]:
    """Cell -> what names it: study, cell, dataset, depth, arm, context; in the order of the table of trials."""
    several = len(pc.unique(trials["dataset"])) > 1
    return {
        row["cell"]: {
            "study": spec.name,
            **{name: row[name] for name in ("cell", "dataset", "depth")},
            "arm": arm_name(spec, row),
            "context": context_name(row, dataset=several),
        }
        for row in _first_rows(spec, trials)
    }


def _first_rows(spec: Spec, trials: pa.Table) -> list[dict[str, Any]]:
    """The first row of each cell: the cell, its dataset and depth, and every factor's level."""
    columns = list(dict.fromkeys(["cell", "dataset", "depth", *map(setting_column, spec.factor_names())]))
    cells = trials["cell"].combine_chunks().dictionary_encode()
    first = np.unique(cells.indices.to_numpy(zero_copy_only=False), return_index=True)[1]
    rows: list[dict[str, Any]] = trials.select(columns).take(pa.array(first, pa.int64())).to_pylist()
    return rows
