"""What each cell was given, and how its networks ended.

Source: https://arxiv.org/abs/1909.03004
"""

from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.style import COLOURS, INK, MUTED
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from analysis.trials.grid import Floats
from analysis.words.columns import number, texts
from analysis.words.rows import Rows, distinct
from search_spaces.spec import Spec
from study.registry import FIGURES

# a hatch beside each colour, so that bars can be told apart in grey
_EPOCHS = {"search": (COLOURS[5], ""), "confirm": (COLOURS[0], ""), "short": (COLOURS[3], "...")}
_SECONDS = {**_EPOCHS, "measure": ("#ffffff", "////")}
_STATES = {
    "completed": (COLOURS[2], ""),
    "collapsed": (COLOURS[4], "xxx"),
    "diverged": (COLOURS[1], "\\\\\\"),
    "failed": (INK, ""),
    "not trained": ("#ffffff", "..."),
}


def outcomes_data(inputs: Inputs) -> Rows:
    """Rows of ``epochs`` and ``seconds`` by phase, and of confirmed ``networks`` by state, for every planned cell."""
    rows = []
    for cell in build_table(inputs, "cells").to_pylist():
        planned = inputs.planned_replicates(cell["cell"]) or 0
        ended = {state: cell[f"n_{state}"] for state in ("completed", "collapsed", "diverged", "failed")}
        parts = {
            "epochs": {phase: cell[f"epochs_{phase}"] for phase in _EPOCHS},
            "seconds": {phase: cell[f"{phase}_seconds"] for phase in _SECONDS},
            "networks": {**ended, "not trained": max(0, planned - cell["n_confirm"])},
        }
        for quantity, values in parts.items():
            named = {"cell": cell["cell"], "quantity": quantity}
            rows += [{**named, "part": part, "value": float(value)} for part, value in values.items()]
    return rows


@FIGURES.register(
    "outcomes",
    title="Budget and outcome",
    place=4.0,
    always=True,
    formula="What each cell was given and how its confirmed networks ended. Arms that are compared must have been given as "
    "many epochs; seconds are the workers', which other work on the machine makes longer.",
    source="https://arxiv.org/abs/1909.03004",
    data=outcomes_data,
    columns=(*texts("cell quantity part"), number("value", "of the quantity: epochs, seconds (s) or networks")),
    empty="Nothing has been trained yet.",
)
def draw_outcomes(data: pa.Table, spec: Spec) -> Figure:
    """Three panels (epochs, time, networks), one line per cell."""
    rows = data.to_pylist()
    cells = distinct(rows, "cell")
    figure = Figure(figsize=(10.4, 1.3 + 0.235 * max(len(cells), 3)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    values = {(row["cell"], row["quantity"], row["part"]): row["value"] for row in rows}
    most = max(sum(values[cell, "seconds", part] for part in _SECONDS) for cell in cells)
    unit, divisor = ("h", 3600) if most >= 2 * 3600 else ("min", 60) if most >= 120 else ("s", 1)
    drawn = (
        ("epochs", _EPOCHS, 1, "Epochs", "epochs"),
        ("seconds", _SECONDS, divisor, "Time of workers", f"time ({unit})"),
        ("networks", _STATES, 1, "Confirmed networks", "networks"),
    )
    for axis, (quantity, parts, by, title, label) in zip(axes, drawn, strict=True):
        widths = {part: np.array([values[cell, quantity, part] / by for cell in cells]) for part in parts}
        # no word of shortened trainings where there are none
        shown = {part: fill for part, fill in parts.items() if widths[part].any()} or parts
        _bars(axis, {part: widths[part] for part in shown}, shown)
        axis.set_title(title, pad=40)
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(cells)), cells)
    axes[0].set_ylim(len(cells) - 0.4, -0.6)
    return figure


def _bars(axis: Axes, widths: dict[str, Floats], parts: dict[str, tuple[str, str]]) -> None:
    left = np.zeros(len(next(iter(widths.values()))))
    for part, width in widths.items():
        axis.barh(range(len(width)), width, 0.7, left=left, **_filled(*parts[part]))
        left = left + width
    axis.grid(visible=True, axis="x")
    axis.tick_params(axis="y", length=0)
    handles = [Patch(**_filled(*fill), label=part) for part, fill in parts.items()]
    style: dict[str, Any] = {"handlelength": 1.2, "handletextpad": 0.4, "columnspacing": 0.9, "fontsize": 8}
    axis.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, **style)


def _filled(colour: str, hatch: str) -> dict[str, Any]:
    return {"facecolor": colour, "hatch": hatch, "edgecolor": MUTED, "linewidth": 0.5}
