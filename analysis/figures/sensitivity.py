"""How wide each cell's good region of the nuisance hyperparameters is."""

import pyarrow as pa
from matplotlib.figure import Figure

from analysis.figures.style import MUTED, series_marks, series_styles
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from analysis.words.columns import floats, shared, texts
from analysis.words.rows import Rows, grouped
from search_spaces.spec import Spec
from study.registry import FIGURES

_KINDS = {"share_startup": "start-up points", "share": "all trials"}


def sensitivity_data(inputs: Inputs) -> Rows:
    """Rows of the table ``sensitivity``: a cell's share of good trials, of the start-up points and of all."""
    rows = []
    for row in build_table(inputs, "sensitivity").to_pylist():
        for name, kind in _KINDS.items():
            named = {"cell": row["cell"], "kind": kind, "n_blocks": row["n_blocks"], "n_trials": row["n_trials"]}
            if row[name] is not None:
                rows.append({**named, "share": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]})
    return rows


@FIGURES.register(
    "sensitivity",
    title="Width of the good region",
    place=4.8,
    formula="Share of search trials whose validation accuracy is within the accuracy margin of the best of their block, with "
    "jackknife intervals over blocks. The start-up points are the same even sample of the space for every cell; of all trials "
    "the sampler chose most.",
    source="https://github.com/google-research/tuning_playbook",
    data=sensitivity_data,
    columns=(*texts("cell kind"), *floats("share low high", "fraction of trials"), *shared("n_blocks n_trials")),
    empty="No search trial has been run yet.",
)
def draw_sensitivity(data: pa.Table, spec: Spec) -> Figure:
    """One line per cell, both shares beside one another."""
    rows = data.to_pylist()
    cells = grouped(rows, "cell")
    figure = Figure(figsize=(7.4, 0.9 + 0.27 * max(len(cells), 3)), layout="constrained")
    axis = figure.subplots()
    styles = series_styles(_KINDS.values())
    for middle, mine in enumerate(cells.values()):
        for row in mine:
            style = styles[row["kind"]]
            y = middle + (-0.14 if row["kind"] == "start-up points" else 0.14)
            if row["low"] is not None:
                axis.plot([100 * row["low"], 100 * row["high"]], [y, y], **style.line, linewidth=1.3)
            axis.plot([100 * row["share"]], [y], style.marker, color=style.colour, markersize=5)
    for y, (first, *_) in enumerate(cells.values()):
        text = f"{first['n_trials']} trials, {first['n_blocks']} blocks"
        axis.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=MUTED)
    axis.set_yticks(range(len(cells)), list(cells))
    axis.set_ylim(len(cells) - 0.4, -0.6)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("share of trials in the good region (%)")
    axis.grid(visible=True, axis="x")
    axis.tick_params(axis="y", length=0)
    handles = series_marks(styles, markersize=5, linewidth=1.3)
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure
