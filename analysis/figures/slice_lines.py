"""https://arxiv.org/abs/1712.09913 (Li et al. 2018): the training loss along random directions, arms on the same axes."""

import math
from statistics import median
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import COLOURS, INK, LINES, MUTED, mark, message, panels
from analysis.inputs import Inputs
from analysis.tables.pictured import pictured_rows
from search_spaces.spec import Spec
from study.registry import FIGURES

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("context", "arm", "trial_key", "note")),
        ("direction", pa.int64()),
        pa.field("alpha", pa.float64(), metadata={"unit": "of the filters' norms"}),
        pa.field("loss", pa.float64(), metadata={"unit": "nat"}),
        pa.field("accuracy", pa.float64(), metadata={"unit": "fraction of images"}),
    ]
)


def slice_lines_data(inputs: Inputs) -> pa.Table:
    """One row a pictured network, direction and distance; a network without them has one row that says why in ``note``."""
    return pa.Table.from_pylist(pictured_rows(inputs, "loss_slices", "line"), schema=_SCHEMA)


@FIGURES.register(
    "slice_lines",
    title="Training loss along random directions",
    place=3.1,
    formula="Loss on a subset of the training images at the trained weights plus alpha times a filter-normalised random "
    "direction; networks of one panel share seeds, directions (where a parameter has the same name and shape) and axes. Thin: "
    "single directions; thick: their median. A line ends where the loss is not finite, and leaves the panel where it is "
    "above twice the most that a completed network has.",
    source="https://arxiv.org/abs/1712.09913",
    data=slice_lines_data,
    optional=True,
)
def draw_slice_lines(data: pa.Table, spec: Spec) -> Figure:
    """One panel a context, one colour and line style an arm."""
    rows = data.to_pylist()
    if not rows:
        return message("No slice of the loss has been taken.")
    contexts, arms = (list(dict.fromkeys(row[name] for row in rows)) for name in ("context", "arm"))
    figure, axes = panels(len(contexts), 3, (3.3, 2.7))
    for axis, context in zip(axes, contexts, strict=True):
        notes = []
        for i, arm in enumerate(arms):
            mine = [row for row in rows if row["context"] == context and row["arm"] == arm]
            style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
            lines: dict[int, list[dict[str, Any]]] = {}
            by_distance: dict[float, list[float]] = {}
            for row in mine:
                if row["alpha"] is not None:
                    lines.setdefault(row["direction"], []).append(row)
                    by_distance.setdefault(row["alpha"], []).append(row["loss"])
            for line in lines.values():
                axis.plot([r["alpha"] for r in line], [_finite(r["loss"]) for r in line], lw=0.6, alpha=0.5, **style)
            middle = [_finite(median(losses)) for losses in by_distance.values()]
            axis.plot(list(by_distance), middle, linewidth=2.0, **style)
            notes += [f"{arm}: {row['note']}" for row in mine[:1] if row["note"]]
        axis.set_yscale("log")
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axis.set_title(context)
        if notes:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
            place: dict[str, Any] = {
                "xycoords": "axes fraction",
                "ha": "center",
                "va": "top",
                "fontsize": 8,
                "color": MUTED,
            }
            axis.annotate("\n".join(notes), (0.5, 0.96), bbox=box, **place)
    axes[0].set_ylim(*_limits(rows))
    figure.supxlabel("alpha (distance in units of the filters' norms)", fontsize=9)
    figure.supylabel("training loss (nats)", fontsize=9)
    handles = [
        mark(color=COLOURS[i % len(COLOURS)], linestyle=LINES[i % len(LINES)], linewidth=2, label=arm)
        for i, arm in enumerate(arms)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(arms), handlelength=3, labelcolor=INK)
    return figure


def _finite(loss: float) -> float:
    """What cannot be drawn is a gap."""
    return loss if math.isfinite(loss) and loss > 0 else math.nan


def _limits(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """A factor of two about the losses of completed networks: one that failed may be anywhere."""
    drawn = [(row["note"], _finite(row["loss"])) for row in rows if row["loss"] is not None]
    losses = [loss for note, loss in drawn if not note and not math.isnan(loss)]
    losses = losses or [loss for _, loss in drawn if not math.isnan(loss)] or [1.0]
    return min(losses) / 2, max(losses) * 2
