"""Smoothness against accuracy along each arm's path: which arm is smoother where both are equally accurate."""

import textwrap

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from analysis.figures.style import INK, MUTED, mark, panel_grid, series_marks, series_styles
from analysis.figures.subjects import main_statistics
from analysis.inputs import Inputs
from analysis.tables.matched import BUDGETS, Paths, all_paths, smoothness_outcomes
from analysis.words.columns import FRACTION, counts, number, texts
from analysis.words.rows import Rows, distinct, where
from analysis.words.wording import axis_text
from search_spaces.spec import Spec
from study.registry import FIGURES

# of a line beside an axis
_MOST_CHARACTERS = 34


def matched_data(inputs: Inputs) -> Rows:
    """One row per cell, path, statistic and point: means over the networks that completed and have a value there."""
    grid, outcomes = inputs.grid, smoothness_outcomes(inputs)
    cells, completed = (np.array(grid.confirm[name].to_pylist()) for name in ("cell", "state"))
    rows: Rows = []
    for paths in all_paths(inputs, outcomes):
        for cell in dict.fromkeys(cells.tolist()):
            networks = np.flatnonzero((cells == cell) & (completed == "completed"))
            head = {"cell": cell, "arm": inputs.heads[cell]["arm"], "context": inputs.heads[cell]["context"]}
            for outcome in outcomes:
                named = {**head, "statistic": outcome.name, "scale": outcome.scale}
                rows += [{**named, **point} for point in _points(paths, outcome.name, networks)]
    return rows


def _points(paths: Paths, outcome: str, networks: np.ndarray) -> Rows:
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
    columns=(
        *texts("cell arm context along statistic scale"),
        number("point", "of the epochs (budgets) or epochs (training)"),
        *counts("n"),
        number("val_accuracy", FRACTION),
        number("value", "of the statistic, its logarithm where scale is log ratio"),
    ),
    empty="No training is shortened, and nothing is measured during training.",
)
def draw_matched(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per depth and dataset, one column per statistic."""
    rows = data.to_pylist()
    statistics = main_statistics(spec, distinct(rows, "statistic"))
    contexts, ways = distinct(rows, "context"), distinct(rows, "along")
    styles = series_styles(distinct(rows, "arm"))
    figure, axes = panel_grid(len(contexts), len(statistics), (3.5, 2.9), (1.9, 0.6), sharex="row", sharey="col")
    for line, context in zip(axes, contexts, strict=True):
        for axis, statistic in zip(line, statistics, strict=True):
            for arm, style in styles.items():
                for along in ways:
                    mine = where(rows, context=context, statistic=statistic, arm=arm, along=along)
                    x, y = [100 * r["val_accuracy"] for r in mine], [r["value"] for r in mine]
                    if along == BUDGETS:
                        axis.plot(x, y, color=style.colour, linewidth=1.8, marker=style.marker, markersize=4)
                        axis.plot(x[-1:], y[-1:], color=style.colour, marker=style.marker, markersize=7)
                    else:
                        axis.plot(x, y, color=style.colour, linewidth=0.9, linestyle="--")
            axis.set_title(context)
            axis.grid(visible=True)
            axis.set_xlabel("validation accuracy (%)")
            text = axis_text(statistic, where(rows, statistic=statistic)[0]["scale"])
            axis.set_ylabel(textwrap.fill(text, _MOST_CHARACTERS))
    handles = series_marks(styles, linestyle="-", linewidth=1.8, markersize=4)
    handles.append(mark(color=MUTED, linewidth=0.9, linestyle="--", label="during training,\nnot annealed"))
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK)
    return figure
