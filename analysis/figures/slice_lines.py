"""The training loss along random directions, arms on the same axes.

Source: https://arxiv.org/abs/1712.09913
"""

import math
from statistics import median
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import INK, MUTED, mark, panels, say_axes, series_styles
from analysis.tables.pictured import PICTURED, pictured_rows, scale_losses
from analysis.words.columns import FRACTION, integer, number
from analysis.words.rows import Rows, distinct, grouped, where
from search_spaces.spec import Spec
from study.registry import FIGURES


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
    contexts, styles = distinct(rows, "context"), series_styles(distinct(rows, "arm"))
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
    axes[0].set_ylim(*_limits(rows))
    say_axes(figure, "alpha (distance in units of the filters' norms)", "training loss (nats)")
    handles = [mark(**style.line, linewidth=2, label=arm) for arm, style in styles.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(styles), handlelength=3, labelcolor=INK)
    return figure


def _finite(loss: float) -> float:
    """What cannot be drawn is a gap."""
    return loss if math.isfinite(loss) and loss > 0 else math.nan


def _limits(rows: Rows) -> tuple[float, float]:
    """A factor of two about the losses that give the scale."""
    losses = scale_losses(rows)
    return min(losses) / 2, max(losses) * 2
