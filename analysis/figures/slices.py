"""The training loss about the trained weights: along random directions, and as contours on a square.

Source: https://arxiv.org/abs/1712.09913
"""

import math
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.style import INK, MUTED, gap, mark, panel_grid, panels, say_axes, title_panel
from analysis.figures.subjects import arm_styles
from analysis.tables.kept import PICTURED, pictured_rows, scale_losses
from analysis.words.columns import floats, integer, number
from analysis.words.rows import Rows, distinct, grouped, where
from search_spaces.spec import Spec
from study.registry import FIGURES
from study.schema import FRACTION

# Lightness rises all the way, for any colour vision and in grey.
_COLOURS = "cividis"
# Losses of interest, in nats: guessing among ten classes costs 2.3.
_LOWEST, _HIGHEST = 1e-3, 1e3
_LEVELS_A_DECADE = 3
_OUTLINE: list[AbstractPathEffect] = [withStroke(linewidth=2.0, foreground=INK)]


@FIGURES.register(
    "slice_lines",
    title="Training loss along random directions",
    place=3.1,
    formula="Loss on a subset of the training images at the trained weights plus alpha times a filter-normalised random "
    "direction; networks of one panel share seeds, directions (where a parameter has the same name and shape) and axes. Thin: "
    "single directions; thick: their median. A line ends where the loss is not finite, and leaves the panel where it is "
    "above twice the most that a completed network has.",
    source="https://arxiv.org/abs/1712.09913",
    # a network without the table has one row that says why in ``note``
    data=lambda inputs: pictured_rows(inputs, "loss_slices", "line"),
    columns=(
        *PICTURED,
        integer("direction", "identifier"),
        number("alpha", "of the filters' norms"),
        number("loss", "nat"),
        number("accuracy", FRACTION),
    ),
    empty="No slice of the loss has been taken.",
)
def draw_slice_lines(data: pa.Table, spec: Spec) -> Figure:
    """One panel per context, one colour and line style per arm."""
    rows = data.to_pylist()
    contexts, styles = distinct(rows, "context"), arm_styles(spec, distinct(rows, "arm"))
    figure, axes = panels(len(contexts), 3, (3.3, 2.7))
    for axis, context in zip(axes, contexts, strict=True):
        notes = []
        for arm, style in styles.items():
            mine = where(rows, context=context, arm=arm)
            points = [row for row in mine if row["alpha"] is not None]
            for line in grouped(points, "direction").values():
                x, y = [row["alpha"] for row in line], [_finite(row["loss"]) for row in line]
                axis.plot(x, y, linewidth=0.6, alpha=0.5, **style.line)
            by_distance = grouped(points, "alpha")
            middle = [_finite(median(row["loss"] for row in same)) for same in by_distance.values()]
            axis.plot(list(by_distance), middle, linewidth=2.0, **style.line)
            notes += [f"{arm}: {row['note']}" for row in mine[:1] if row["note"]]
        axis.set_yscale("log")
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axis.set_title(context)
        if notes:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
            place: dict[str, Any] = {"xycoords": "axes fraction", "ha": "center", "va": "top"}
            axis.annotate("\n".join(notes), (0.5, 0.96), bbox=box, fontsize=8, color=MUTED, **place)
    losses = scale_losses(rows)
    axes[0].set_ylim(min(losses) / 2, max(losses) * 2)
    say_axes(figure, "alpha (distance in units of the filters' norms)", "training loss (nats)")
    handles = [mark(**style.line, linewidth=2, label=arm) for arm, style in styles.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(styles), handlelength=3, labelcolor=INK)
    return figure


def _finite(loss: float) -> float:
    """What cannot be drawn is a gap."""
    return loss if math.isfinite(loss) and loss > 0 else math.nan


@FIGURES.register(
    "slice_squares",
    title="Training loss on a square of weights",
    place=3.2,
    formula="Loss on a subset of the training images over the square that two filter-normalised random directions span; the "
    "cross marks the trained weights. Seeds, directions, axes, levels and colours are shared. Labelled lines: powers of ten. "
    "White: not finite. The scale is that of the completed networks, from 0.001 to 1000 at most; beyond, colours stay.",
    source="https://arxiv.org/abs/1712.09913",
    # a network without the table has one row that says why in ``note``
    data=lambda inputs: pictured_rows(inputs, "loss_slices", "square"),
    columns=(
        *PICTURED,
        *floats("alpha beta", "of the filters' norms"),
        number("loss", "nat"),
        number("accuracy", FRACTION),
    ),
    empty="No slice of the loss has been taken.",
)
def draw_slice_squares(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per context, one column per arm."""
    rows = data.to_pylist()
    contexts, arms, levels = distinct(rows, "context"), distinct(rows, "arm"), _levels(rows)
    figure, axes = panel_grid(len(contexts), len(arms), (2.6, 2.5), (1.3, 0.5), sharex=True, sharey=True)
    for line, context in zip(axes, contexts, strict=True):
        for axis, arm in zip(line, arms, strict=True):
            mine = where(rows, context=context, arm=arm)
            _panel(axis, mine, levels)
            title_panel(axis, arm, context, mine, drawn=bool(mine) and mine[0]["alpha"] is not None)
            axis.set_aspect("equal")
    say_axes(figure, "alpha (first direction)", "beta (second direction)")
    scale = ScalarMappable(LogNorm(levels[0], levels[-1]), _COLOURS)
    figure.colorbar(scale, ax=axes, label="training loss (nats)", extend="both", shrink=0.8, aspect=30)
    return figure


def _panel(axis: Axes, rows: Rows, levels: NDArray[np.float64]) -> None:
    points = [row for row in rows if row["alpha"] is not None]
    if not points:
        gap(axis, rows[0]["note"] if rows else "not in this study")
        return
    alpha, beta = (sorted({row[name] for row in points}) for name in ("alpha", "beta"))
    # of the logarithm, which is near to linear between points where the loss is not
    height = np.full((len(beta), len(alpha)), np.nan)
    for row in points:
        if math.isfinite(row["loss"]):
            height[beta.index(row["beta"]), alpha.index(row["alpha"])] = math.log10(max(row["loss"], levels[0] / 10))
    shown, steps = np.ma.masked_invalid(height), np.log10(levels)
    axis.contourf(alpha, beta, shown, levels=steps, vmin=steps[0], vmax=steps[-1], cmap=_COLOURS, extend="both")
    decades = [step for step in steps if abs(step - round(step)) < 1e-9]
    lines = axis.contour(alpha, beta, shown, levels=decades, colors="white", linewidths=0.9, linestyles="solid")
    lines.set_path_effects(_OUTLINE)
    for text in axis.clabel(lines, fmt=lambda step: f"{10**step:g}", fontsize=7.5):
        text.set_path_effects(_OUTLINE)
    axis.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=2.6)
    axis.plot(0, 0, "+", color=INK, markersize=8, markeredgewidth=1.2)


def _levels(rows: Rows) -> NDArray[np.float64]:
    """Levels at thirds of a power of ten over the losses that give the scale."""
    losses = scale_losses(rows)
    low, high = (min(max(loss, _LOWEST), _HIGHEST) for loss in (min(losses), max(losses)))
    first = math.floor(_LEVELS_A_DECADE * math.log10(low))
    last = max(first + 1, math.ceil(_LEVELS_A_DECADE * math.log10(high)))
    found: NDArray[np.float64] = 10 ** (np.arange(first, last + 1) / _LEVELS_A_DECADE)
    return found
