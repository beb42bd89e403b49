"""Attention against importance by layer and type of attention, every network a mark (claim C1)."""

import statistics

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import INK, MUTED, SeriesStyle, mark, say_axes, series_marks
from analysis.figures.subjects import arm_styles
from analysis.inputs import Inputs
from analysis.tables.importance import layer_rows
from analysis.words.columns import flag, floats, integer, shared, texts
from analysis.words.rows import Rows, distinct, grouped, where
from search_spaces.spec import Spec
from study.registry import FIGURES

# of the distance of two layers; the rest keeps them apart
_WIDTH = 0.7
_ROW_HEIGHT, _LEAST_HEIGHT = 1.3, 2.9
# inches: a layer's own, with one more for each form in it, and a panel's least and most
_LAYER, _FORM, _LEAST_PANEL, _MOST_PANEL = 0.16, 0.12, 2.2, 9.0


def importance_data(inputs: Inputs) -> Rows:
    """One row per network and layer, for ablation to zero."""
    rows = [row for row in layer_rows(inputs) if row["importance"] == "zero" and row["spearman"] is not None]
    return [{**row, "arm": inputs.heads[row["cell"]]["arm"]} for row in rows]


@FIGURES.register(
    "importance",
    title="Attention against importance",
    place=2.8,
    formula="Rank correlation of a layer's mean gates with the loss that taking a unit out adds; each mark is one network "
    "(hollow: not converged). Black bars: what noise leaves possible (mean ceiling). Grey crosses: the same for the unit's "
    "mean absolute activation, mean over networks. Layers count from the input.",
    source="https://arxiv.org/abs/2106.15067",
    data=importance_data,
    columns=(
        *texts("dataset attention attention_form cell arm"),
        *shared("depth"),
        integer("layer", "identifier"),
        *shared("replicate"),
        *floats("spearman ceiling activation", "rank correlation"),
        flag("converged"),
    ),
    empty="Attention has not been compared with importance.",
)
def draw_importance(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per type of attention, one column per dataset and depth; in a layer one column of marks per arm."""
    rows = data.to_pylist()
    types, contexts = (
        distinct(rows, "attention"),
        sorted(distinct(rows, "dataset", "depth"), key=lambda at: (at[0], at[1] or 0)),
    )
    styles = arm_styles(spec, distinct(rows, "arm"))
    layers = {at: max(row["layer"] for row in same) for at, same in grouped(rows, "dataset", "depth").items()}
    widths = [min(_MOST_PANEL, max(_LEAST_PANEL, layers[at] * (_LAYER + _FORM * len(styles)))) for at in contexts]
    height = max(_LEAST_HEIGHT, _ROW_HEIGHT * len(types) + 0.9)
    figure = Figure(figsize=(max(sum(widths) + 0.8, 6.4), height), layout="constrained")
    grid = figure.subplots(len(types), len(contexts), squeeze=False, sharex="col", sharey=True, width_ratios=widths)
    several = len(distinct(rows, "dataset")) > 1
    for kind, line in zip(types, grid, strict=True):
        for at, axis in zip(contexts, line, strict=True):
            mine = where(rows, attention=kind)
            shown = {name: styles[name] for name in distinct(mine, "arm")}
            _panel(axis, where(mine, dataset=at[0], depth=at[1]), shown, layers[at])
        line[0].set_ylabel(kind)
    for at, axis in zip(contexts, grid[0], strict=True):
        depth = [] if at[1] is None else [f"depth {at[1]}"]
        axis.set_title(", ".join([at[0], *depth] if several else depth))
    say_axes(figure, "attention layer", "Spearman's rank correlation, by attention", color=INK)
    handles = series_marks(styles, linestyle="none", markersize=4)
    handles.append(mark(color=INK, linewidth=1.5, label="noise ceiling"))
    handles.append(mark(color=MUTED, marker="x", linestyle="none", markersize=5, label="activation"))
    figure.legend(handles=handles, loc="outside upper center", labelcolor=INK, ncols=min(len(handles), 6))
    return figure


def _panel(axis: Axes, rows: Rows, styles: dict[str, SeriesStyle], num_layers: int) -> None:
    axis.grid(visible=True)
    axis.axhline(0, color=MUTED, linewidth=0.8)
    half = _WIDTH / len(styles) / 2.2
    for index, (name, arm) in enumerate(styles.items()):
        shift = _WIDTH * ((index + 0.5) / len(styles) - 0.5)
        mine = where(rows, arm=name)
        for converged in (True, False):
            points = [row for row in mine if bool(row["converged"]) == converged]
            x, y = [row["layer"] + shift for row in points], [row["spearman"] for row in points]
            fill = arm.colour if converged else "none"
            axis.plot(x, y, arm.marker, color=arm.colour, markerfacecolor=fill, markersize=3, alpha=0.7)
        for layer, same in grouped(mine, "layer").items():
            at = layer + shift
            ceilings, controls = (
                [row[name] for row in same if row[name] is not None] for name in ("ceiling", "activation")
            )
            if ceilings:
                axis.plot([at - half, at + half], [statistics.fmean(ceilings)] * 2, color=INK, linewidth=1.5)
            if controls:
                axis.plot(at, statistics.fmean(controls), "x", color=MUTED, markersize=4)
    axis.set_xlim(0.5, num_layers + 0.5)
    axis.set_ylim(-1.05, 1.05)
    axis.set_yticks([-1, -0.5, 0, 0.5, 1])
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
