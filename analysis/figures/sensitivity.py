"""https://github.com/google-research/tuning_playbook: how wide each cell's good region of the nuisance hyperparameters is."""

from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, LINES, MARKERS, MUTED, mark, message
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from search_spaces.spec import Spec
from study.registry import FIGURES

_KINDS = {"share_startup": "start-up points", "share": "all trials"}
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("cell", "kind")),
        *(pa.field(name, pa.float64(), metadata={"unit": "fraction of trials"}) for name in ("share", "low", "high")),
        *(pa.field(name, pa.int64(), metadata={"unit": "count"}) for name in ("n_blocks", "n_trials")),
    ]
)


def sensitivity_data(inputs: Inputs) -> pa.Table:
    """Rows of the table ``sensitivity``: a cell's share of good trials, of the start-up points and of all."""
    rows = []
    for row in build_table(inputs, "sensitivity").to_pylist():
        for name, kind in _KINDS.items():
            named = {"cell": row["cell"], "kind": kind, "n_blocks": row["n_blocks"], "n_trials": row["n_trials"]}
            if row[name] is not None:
                rows.append({**named, "share": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]})
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


@FIGURES.register(
    "sensitivity",
    title="Width of the good region",
    place=4.8,
    formula="Share of search trials whose validation accuracy is within the accuracy margin of the best of their block, with "
    "jackknife intervals over blocks. The start-up points are the same even sample of the space for every cell; of all trials "
    "the sampler chose most.",
    source="https://github.com/google-research/tuning_playbook",
    data=sensitivity_data,
    optional=True,
)
def draw_sensitivity(data: pa.Table, spec: Spec) -> Figure:
    """One line a cell, both shares beside one another."""
    rows = data.to_pylist()
    if not rows:
        return message("No search trial has been run yet.")
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    figure = Figure(figsize=(7.4, 0.9 + 0.27 * max(len(cells), 3)), layout="constrained")
    axis = figure.subplots()
    looks: dict[str, dict[str, Any]] = {
        kind: {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": LINES[i], "markersize": 5}
        for i, kind in enumerate(_KINDS.values())
    }
    for row in rows:
        look = looks[row["kind"]]
        y = cells.index(row["cell"]) + (-0.14 if row["kind"] == "start-up points" else 0.14)
        if row["low"] is not None:
            line: dict[str, Any] = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 1.3}
            axis.plot([100 * row["low"], 100 * row["high"]], [y, y], **line)
        axis.plot([100 * row["share"]], [y], **{**look, "linestyle": "none"})
    for y, cell in enumerate(cells):
        first = next(row for row in rows if row["cell"] == cell)
        text = f"{first['n_trials']} trials, {first['n_blocks']} blocks"
        axis.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=MUTED)
    axis.set_yticks(range(len(cells)), cells)
    axis.set_ylim(len(cells) - 0.4, -0.6)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("share of trials in the good region (%)")
    axis.grid(visible=True, axis="x")
    axis.tick_params(axis="y", length=0)
    handles = [mark(**look, linewidth=1.3, label=kind) for kind, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure
