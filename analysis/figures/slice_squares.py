"""https://arxiv.org/abs/1712.09913 (Li et al. 2018): contours of the training loss on a square through the trained weights."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from analysis.figures.style import INK, gap, message
from analysis.inputs import Inputs
from analysis.tables.pictured import pictured_rows
from search_spaces.spec import Spec
from study.registry import FIGURES

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("context", "arm", "trial_key", "note")),
        *(
            pa.field(name, pa.float64(), metadata={"unit": unit})
            for name, unit in (
                ("alpha", "of the filters' norms"),
                ("beta", "of the filters' norms"),
                ("loss", "nat"),
                ("accuracy", "fraction of images"),
            )
        ),
    ]
)
# Lightness rises all the way, for any colour vision and in grey.
_COLOURS = "cividis"
# Losses of interest, in nats: guessing among ten classes costs 2.3.
_LOWEST, _HIGHEST = 1e-3, 1e3
_LEVELS_A_DECADE = 3
_OUTLINE: list[AbstractPathEffect] = [withStroke(linewidth=2.0, foreground=INK)]


def slice_squares_data(inputs: Inputs) -> pa.Table:
    """One row a pictured network and point; a network without them has one row that says why in ``note``."""
    return pa.Table.from_pylist(pictured_rows(inputs, "loss_slices", "square"), schema=_SCHEMA)


@FIGURES.register(
    "slice_squares",
    title="Training loss on a square of weights",
    place=3.2,
    formula="Loss on a subset of the training images over the square that two filter-normalised random directions span; the "
    "cross marks the trained weights. Seeds, directions, axes, levels and colours are shared. Labelled lines: powers of ten. "
    "White: not finite. The scale is that of the completed networks, from 0.001 to 1000 at most; beyond, colours stay.",
    source="https://arxiv.org/abs/1712.09913",
    data=slice_squares_data,
    optional=True,
)
def draw_slice_squares(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels a context, one column an arm."""
    rows = data.to_pylist()
    if not rows:
        return message("No slice of the loss has been taken.")
    contexts, arms = (list(dict.fromkeys(row[name] for row in rows)) for name in ("context", "arm"))
    levels = _levels(rows)
    figure = Figure(figsize=(1.3 + 2.6 * len(arms), 0.5 + 2.5 * len(contexts)), layout="constrained")
    grid = figure.subplots(len(contexts), len(arms), squeeze=False, sharex=True, sharey=True)
    for line, context in zip(grid, contexts, strict=True):
        for axis, arm in zip(line, arms, strict=True):
            mine = [row for row in rows if row["context"] == context and row["arm"] == arm]
            _panel(axis, mine, levels)
            note = f" ({mine[0]['note']})" if mine and mine[0]["note"] and mine[0]["alpha"] is not None else ""
            axis.set_title(f"{arm}, {context}{note}" if context else f"{arm}{note}", fontsize=9)
            axis.set_aspect("equal")
    figure.supxlabel("alpha (first direction)", fontsize=9)
    figure.supylabel("beta (second direction)", fontsize=9)
    scale = ScalarMappable(LogNorm(levels[0], levels[-1]), _COLOURS)
    figure.colorbar(scale, ax=grid, label="training loss (nats)", extend="both", shrink=0.8, aspect=30)
    return figure


def _panel(axis: Axes, rows: list[dict[str, Any]], levels: NDArray[np.float64]) -> None:
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


def _levels(rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Levels at thirds of a power of ten over the losses of completed networks: one that failed may be anywhere."""
    drawn = [(row["note"], row["loss"]) for row in rows if row["loss"] and math.isfinite(row["loss"])]
    losses = [loss for note, loss in drawn if not note] or [loss for _, loss in drawn] or [1.0]
    low, high = (min(max(loss, _LOWEST), _HIGHEST) for loss in (min(losses), max(losses)))
    first = math.floor(_LEVELS_A_DECADE * math.log10(low))
    last = max(first + 1, math.ceil(_LEVELS_A_DECADE * math.log10(high)))
    found: NDArray[np.float64] = 10 ** (np.arange(first, last + 1) / _LEVELS_A_DECADE)
    return found
