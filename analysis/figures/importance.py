"""Attention against importance by layer and type of attention, every network a mark (claim C1)."""

import statistics
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure

from analysis.figures.style import INK, MUTED, looks, mark, message, panels
from analysis.importance import layer_rows
from analysis.tables import Inputs
from search_spaces.spec import Spec
from study.registry import FIGURES

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "arm", "cell")),
        *((name, pa.int64()) for name in ("depth", "layer", "replicate")),
        *((name, pa.float64()) for name in ("spearman", "ceiling", "activation")),
        ("converged", pa.bool_()),
    ]
)
_WIDTH = 0.6


def importance_data(inputs: Inputs) -> pa.Table:
    """One row a network and layer, for ablation to zero."""
    rows = [
        {**row, "arm": f"{row['attention']}.{row['attention_form']}"}
        for row in layer_rows(inputs)
        if row["importance"] == "zero" and row["spearman"] is not None
    ]
    names = _SCHEMA.names
    return pa.Table.from_pylist([{name: row[name] for name in names} for row in rows], schema=_SCHEMA)


@FIGURES.register(
    "importance",
    title="Attention against importance",
    place=5,
    formula="Rank correlation of a layer's mean gates with the loss that taking a unit out adds; each mark is one network "
    "(hollow: not converged). Black bars: what noise leaves possible (mean ceiling). Grey crosses: the same for the unit's "
    "mean absolute activation, mean over networks. Layers count from the input.",
    source="https://arxiv.org/abs/2106.15067",
    data=importance_data,
    optional=True,
)
def draw_importance(data: pa.Table, spec: Spec) -> Figure:
    """One panel a dataset and depth; within a layer one column of marks an attention and form."""
    rows = data.to_pylist()
    if not rows:
        return message("Attention has not been compared with importance.")
    contexts = list(dict.fromkeys((row["dataset"], row["depth"]) for row in rows))
    look = looks(row["arm"] for row in rows)
    figure, axes = panels(len(contexts), 2, (1.2 + 0.35 * len(look) + 0.45 * max(row["layer"] for row in rows), 3.0))
    for axis, (dataset, depth) in zip(axes, contexts, strict=True):
        mine = [row for row in rows if (row["dataset"], row["depth"]) == (dataset, depth)]
        layers = sorted({row["layer"] for row in mine})
        axis.axhline(0, color=MUTED, linewidth=0.8)
        for index, (name, arm) in enumerate(look.items()):
            shift = _WIDTH * ((index + 0.5) / len(look) - 0.5)
            for layer in layers:
                points = [row for row in mine if row["layer"] == layer and row["arm"] == name]
                if not points:
                    continue
                for row in points:
                    axis.plot(
                        layer + shift,
                        row["spearman"],
                        arm.marker,
                        color=arm.colour,
                        markerfacecolor=arm.colour if row["converged"] else "none",
                        markersize=4,
                        alpha=0.7,
                    )
                _means(axis, layer + shift, _WIDTH / len(look) / 2.2, points)
        axis.set_xticks(layers)
        axis.set_ylim(-1.05, 1.05)
        several = len({context[0] for context in contexts}) > 1
        axis.set_title(f"{dataset}, depth {depth}" if several else f"depth {depth}")
        axis.set_xlabel("attention layer")
    axes[0].set_ylabel("Spearman's rank correlation")
    handles = [mark(marker=a.marker, color=a.colour, linestyle="none", markersize=4, label=n) for n, a in look.items()]
    handles.append(mark(color=INK, linewidth=1.5, label="noise ceiling"))
    handles.append(mark(color=MUTED, marker="x", linestyle="none", markersize=5, label="activation"))
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK)
    return figure


def _means(axis: Any, at: float, half: float, points: list[dict[str, Any]]) -> None:
    """The mean ceiling as a bar, the mean control as a cross."""
    ceilings = [row["ceiling"] for row in points if row["ceiling"] is not None]
    controls = [row["activation"] for row in points if row["activation"] is not None]
    if ceilings:
        axis.plot([at - half, at + half], [statistics.fmean(ceilings)] * 2, color=INK, linewidth=1.5)
    if controls:
        axis.plot(at, statistics.fmean(controls), "x", color=MUTED, markersize=5)
