"""What a cell is called apart from its depth and dataset, so that one arm keeps its name, colour and marker everywhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.trials.records import agrees
from analysis.trials.table import setting_column
from search_spaces import Levels, Spec
from study.config import TrialConfig

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
        value if isinstance(value, str) else f"{name}={value if isinstance(value, bool) else format(value, 'g')}"
        for name, value in levels.items()
        if value is not None
    ]
    return "/".join(texts) or str(values["cell"])


def context_name(values: Mapping[str, Any], *, dataset: bool = False) -> str:
    """``depth 8``, with ``dataset`` first where a study has several; empty where the network has no depth."""
    parts = [str(values["dataset"])] if dataset else []
    return ", ".join(parts + ([] if values["depth"] is None else [f"depth {values['depth']}"]))


def cells_of(spec: Spec) -> list[dict[str, Any]]:
    """Each cell's level of every factor of the study: of one that its grid leaves out, the default."""
    defaults = {name: getattr(TrialConfig, name, None) for name in spec.factor_names()}
    return [defaults | levels for levels in spec.cells()]


def planned_cells(spec: Spec, trials: pa.Table) -> list[dict[str, Any]]:
    """The head of each cell that the study plans, also of one that has no results yet; other cells last.

    A joint search plans no cells: those with results alone.
    """
    heads = cell_heads(spec, trials)
    planned = []
    for levels in () if spec.joint else spec.cells():
        cell = next((cell for cell, head in heads.items() if agrees(head["levels"], levels)), None)
        planned.append(_awaited(spec, levels) if cell is None else heads.pop(cell))
    return planned + list(heads.values())


def _awaited(spec: Spec, levels: Levels) -> dict[str, Any]:
    """A cell that has no results, called as the plan calls it wherever its levels tell."""
    named = dict.fromkeys(spec.factor_names()) | levels
    dataset, depth = (levels.get(name, spec.fixed.get(name)) for name in _CONTEXT)
    arm = arm_name(spec, {"cell": "", **{setting_column(name): level for name, level in named.items()}})
    cell = "/".join(str(part) for part in (dataset, None if depth is None else f"d{depth}", arm) if part)
    return {"study": spec.name, "arm": arm or cell, "cell": cell, "dataset": dataset, "depth": depth, "levels": named}


def cell_heads(spec: Spec, trials: pa.Table) -> dict[str, dict[str, Any]]:
    """Cell -> its head: study, cell, dataset, depth, arm, context; ``levels``: factor -> level. In the order of ``trials``."""
    cells = trials["cell"].combine_chunks().dictionary_encode()
    first = np.unique(cells.indices.to_numpy(zero_copy_only=False), return_index=True)[1]
    columns = list(dict.fromkeys(["cell", *_CONTEXT, *map(setting_column, spec.factor_names())]))
    several = len(pc.unique(trials["dataset"])) > 1
    return {
        row["cell"]: {
            "study": spec.name,
            **{name: row[name] for name in ("cell", *_CONTEXT)},
            "arm": arm_name(spec, row),
            "context": context_name(row, dataset=several),
            "levels": {name: row[setting_column(name)] for name in spec.factor_names()},
        }
        for row in trials.select(columns).take(pa.array(first, pa.int64())).to_pylist()
    }
