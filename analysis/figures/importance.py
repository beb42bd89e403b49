"""Attention against importance by layer and type of attention, every network a mark (claim C1)."""

import statistics
from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import INK, MUTED, Look, looks, mark, message
from analysis.inputs import Inputs
from analysis.tables.importance import layer_rows
from search_spaces.spec import Spec
from study.registry import FIGURES

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "attention", "attention_form", "cell")),
        *((name, pa.int64()) for name in ("depth", "layer", "replicate")),
        *((name, pa.float64()) for name in ("spearman", "ceiling", "activation")),
        ("converged", pa.bool_()),
    ]
)
# of the distance of two layers; the rest keeps them apart
_WIDTH = 0.7
_ROW_HEIGHT, _LEAST_HEIGHT = 1.3, 2.9
# inches: a layer's own, with one more for each form in it, and a panel's least and most
_LAYER, _FORM, _LEAST_PANEL, _MOST_PANEL = 0.16, 0.12, 2.2, 9.0


def importance_data(inputs: Inputs) -> pa.Table:
    """One row a network and layer, for ablation to zero."""
    rows = [row for row in layer_rows(inputs) if row["importance"] == "zero" and row["spearman"] is not None]
    return pa.Table.from_pylist([{name: row[name] for name in _SCHEMA.names} for row in rows], schema=_SCHEMA)


@FIGURES.register(
    "importance",
    title="Attention against importance",
    place=2.8,
    formula="Rank correlation of a layer's mean gates with the loss that taking a unit out adds; each mark is one network "
    "(hollow: not converged). Black bars: what noise leaves possible (mean ceiling). Grey crosses: the same for the unit's "
    "mean absolute activation, mean over networks. Layers count from the input.",
    source="https://arxiv.org/abs/2106.15067",
    data=importance_data,
    optional=True,
)
def draw_importance(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels a type of attention, one column a dataset and depth; in a layer one column of marks a form."""
    rows = data.to_pylist()
    if not rows:
        return message("Attention has not been compared with importance.")
    types = list(dict.fromkeys(row["attention"] for row in rows))
    contexts = sorted({(row["dataset"], row["depth"]) for row in rows})
    look = looks(row["attention_form"] for row in rows)
    layers = {at: max(row["layer"] for row in rows if (row["dataset"], row["depth"]) == at) for at in contexts}
    widths = [min(_MOST_PANEL, max(_LEAST_PANEL, layers[at] * (_LAYER + _FORM * len(look)))) for at in contexts]
    height = max(_LEAST_HEIGHT, _ROW_HEIGHT * len(types) + 0.9)
    figure = Figure(figsize=(max(sum(widths) + 0.8, 6.4), height), layout="constrained")
    grid = figure.subplots(len(types), len(contexts), squeeze=False, sharex="col", sharey=True, width_ratios=widths)
    several = len({dataset for dataset, _ in contexts}) > 1
    for kind, line in zip(types, grid, strict=True):
        for at, axis in zip(contexts, line, strict=True):
            mine = [r for r in rows if (r["attention"], r["dataset"], r["depth"]) == (kind, *at)]
            _panel(axis, mine, look, layers[at])
        line[0].set_ylabel(kind)
    for at, axis in zip(contexts, grid[0], strict=True):
        axis.set_title(f"{at[0]}, depth {at[1]}" if several else f"depth {at[1]}")
    figure.supylabel("Spearman's rank correlation, by attention", fontsize=9, color=INK)
    figure.supxlabel("attention layer", fontsize=9, color=INK)
    handles = [mark(marker=a.marker, color=a.colour, linestyle="none", markersize=4, label=n) for n, a in look.items()]
    handles.append(mark(color=INK, linewidth=1.5, label="noise ceiling"))
    handles.append(mark(color=MUTED, marker="x", linestyle="none", markersize=5, label="activation"))
    figure.legend(handles=handles, loc="outside upper center", labelcolor=INK, ncols=min(len(handles), 6))
    return figure


def _panel(axis: Axes, rows: list[dict[str, Any]], look: dict[str, Look], num_layers: int) -> None:
    axis.grid(visible=True)
    axis.axhline(0, color=MUTED, linewidth=0.8)
    half = _WIDTH / len(look) / 2.2
    for index, (form, arm) in enumerate(look.items()):
        shift = _WIDTH * ((index + 0.5) / len(look) - 0.5)
        mine = [row for row in rows if row["attention_form"] == form]
        for converged in (True, False):
            points = [row for row in mine if bool(row["converged"]) == converged]
            axis.plot(
                [row["layer"] + shift for row in points],
                [row["spearman"] for row in points],
                arm.marker,
                color=arm.colour,
                markerfacecolor=arm.colour if converged else "none",
                markersize=3,
                alpha=0.7,
            )
        for layer in sorted({row["layer"] for row in mine}):
            _means(axis, layer + shift, half, [row for row in mine if row["layer"] == layer])
    axis.set_xlim(0.5, num_layers + 0.5)
    axis.set_ylim(-1.05, 1.05)
    axis.set_yticks([-1, -0.5, 0, 0.5, 1])
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def _means(axis: Axes, at: float, half: float, points: list[dict[str, Any]]) -> None:
    """The mean ceiling as a bar, the mean control as a cross."""
    ceilings = [row["ceiling"] for row in points if row["ceiling"] is not None]
    controls = [row["activation"] for row in points if row["activation"] is not None]
    if ceilings:
        axis.plot([at - half, at + half], [statistics.fmean(ceilings)] * 2, color=INK, linewidth=1.5)
    if controls:
        axis.plot(at, statistics.fmean(controls), "x", color=MUTED, markersize=4)
