"""Smoothness against accuracy along each arm's path: which arm is smoother where both are equally accurate."""

import textwrap
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from analysis.figures.style import INK, MUTED, looks, mark, message
from analysis.inputs import Inputs
from analysis.tables.paths import BUDGETS, Paths, budget_paths, smoothness_outcomes, training_paths
from analysis.trials.arms import cell_heads, context_name, has_datasets
from analysis.words.wording import outcome_text
from search_spaces.spec import Spec
from study.registry import FIGURES

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("cell", "arm", "context", "along", "statistic", "scale")),
        pa.field("point", pa.float64(), metadata={"unit": "of the epochs (budgets) or epochs (training)"}),
        ("n", pa.int64()),
        pa.field("val_accuracy", pa.float64(), metadata={"unit": "fraction of images"}),
        pa.field("value", pa.float64(), metadata={"unit": "of the statistic, its logarithm where scale is log ratio"}),
    ]
)
_MOST_STATISTICS = 3
# of a line beside an axis
_MOST_CHARACTERS = 34


def matched_data(inputs: Inputs) -> pa.Table:
    """One row a cell, path, statistic and point: means over the networks that completed and have a value there."""
    grid, outcomes = inputs.grid, smoothness_outcomes(inputs)
    heads, several = cell_heads(inputs.spec, inputs.trials), has_datasets(inputs.trials)
    cells, completed = (np.array(grid.confirm[name].to_pylist()) for name in ("cell", "state"))
    rows: list[dict[str, Any]] = []
    for paths in (make(inputs, grid, outcomes) for make in (budget_paths, training_paths)):
        for cell in dict.fromkeys(cells.tolist()) if paths else ():
            networks = np.flatnonzero((cells == cell) & (completed == "completed"))
            head = {"cell": cell, "arm": heads[cell]["arm"], "context": context_name(heads[cell], dataset=several)}
            for outcome in outcomes:
                named = {**head, "statistic": outcome.name, "scale": outcome.scale}
                rows += [{**named, **point} for point in _points(paths, outcome.name, networks)]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _points(paths: Paths | None, outcome: str, networks: np.ndarray) -> list[dict[str, Any]]:
    if paths is None:
        return []
    accuracy, values = paths.accuracy[networks], paths.values[outcome][networks]
    there = np.isfinite(accuracy) & np.isfinite(values)
    return [
        {
            "along": paths.along,
            "point": float(point),
            "n": int(there[:, k].sum()),
            "val_accuracy": float(accuracy[there[:, k], k].mean()),
            "value": float(values[there[:, k], k].mean()),
        }
        for k, point in enumerate(paths.points)
        if there[:, k].any()
    ]


@FIGURES.register(
    "matched",
    title="Smoothness along accuracy",
    place=2.1,
    formula="Means over networks; lower is smoother, further right more accurate. Marks on thick lines: fully annealed "
    "trainings of a share and all of the epochs (the last is the largest). Thin dashed lines: the confirmed training itself, "
    "not annealed. Arms compare where their lines lie over one accuracy; elsewhere accuracy differs too.",
    source="",
    data=matched_data,
    optional=True,
)
def draw_matched(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels a depth and dataset, one column a statistic."""
    rows = data.to_pylist()
    if not rows:
        return message("No training is shortened, and nothing is measured during training.")
    claimed = [outcome.name for claim in spec.claims.values() for outcome in claim.outcomes]
    measured = list(dict.fromkeys(row["statistic"] for row in rows))
    statistics = ([name for name in dict.fromkeys(claimed) if name in measured] or measured)[:_MOST_STATISTICS]
    contexts = list(dict.fromkeys(row["context"] for row in rows))
    look = looks(row["arm"] for row in rows)
    figure = Figure(figsize=(1.9 + 3.5 * len(statistics), 0.6 + 2.9 * len(contexts)), layout="constrained")
    grid = figure.subplots(len(contexts), len(statistics), squeeze=False, sharex="row", sharey="col")
    for line, context in zip(grid, contexts, strict=True):
        for axis, statistic in zip(line, statistics, strict=True):
            for name, arm in look.items():
                for along in dict.fromkeys(row["along"] for row in rows):
                    mine = [r for r in rows if _key(r) == (context, statistic, name, along)]
                    x, y = [100 * r["val_accuracy"] for r in mine], [r["value"] for r in mine]
                    if along == BUDGETS:
                        axis.plot(x, y, color=arm.colour, linewidth=1.8, marker=arm.marker, markersize=4)
                        axis.plot(x[-1:], y[-1:], color=arm.colour, marker=arm.marker, markersize=7)
                    else:
                        axis.plot(x, y, color=arm.colour, linewidth=0.9, linestyle="--")
            axis.set_title(context)
            axis.grid(visible=True)
            axis.set_xlabel("validation accuracy (%)")
    for column, statistic in zip(grid.T, statistics, strict=True):
        scale = next(row["scale"] for row in rows if row["statistic"] == statistic)
        is_log = scale == "log ratio" or statistic.endswith("_log")
        for axis in column:
            axis.set_ylabel(
                textwrap.fill(f"{outcome_text(statistic)}{', natural log' if is_log else ''}", _MOST_CHARACTERS)
            )
    handles = [
        mark(marker=arm.marker, color=arm.colour, linewidth=1.8, markersize=4, label=name) for name, arm in look.items()
    ]
    handles.append(mark(color=MUTED, linewidth=0.9, linestyle="--", label="during training,\nnot annealed"))
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK)
    return figure


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["context"], row["statistic"], row["arm"], row["along"]
