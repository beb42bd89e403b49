"""What search trials reach: the best of n, so that a ranking shows for which budgets it holds, and each cell's good region.

Source: https://arxiv.org/abs/1909.03004
"""

from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures.style import INK, MUTED, mark, panels, say_axes, series_marks
from analysis.figures.subjects import arm_styles
from analysis.inputs import Inputs
from analysis.tables.best_of_n import best_of_n_rows
from analysis.tables.build import build_table
from analysis.words.columns import counts, floats, shared, texts
from analysis.words.rows import Rows, distinct, grouped, where
from search_spaces import Spec
from study.registry import FIGURES
from study.schema import FRACTION

_KINDS = {"share_startup": "start-up points", "share": "all trials"}


@FIGURES.register(
    "best_of_n",
    title="Expected best of n trials",
    place=4.6,
    formula="Validation accuracy to expect of the best of n search trials, drawn at random from those that were run: mean "
    "over blocks; bands, one standard deviation over blocks to either side. Where lines cross, the ranking hangs on the "
    "budget of the search.",
    source="https://arxiv.org/abs/1909.03004",
    data=best_of_n_rows,
    columns=(*texts("cell arm context"), *counts("n n_blocks"), *floats("mean sd lowest highest", FRACTION)),
    empty="No search trial has been run yet.",
)
def draw_best_of_n(data: pa.Table, spec: Spec) -> Figure:
    """One panel per depth and dataset, one line per arm."""
    rows = data.to_pylist()
    contexts = distinct(rows, "context")
    styles = arm_styles(spec, distinct(rows, "arm"))
    figure, axes = panels(len(contexts), 2, (3.9, 3.0))
    most = max(row["n"] for row in rows)
    for axis, context in zip(axes, contexts, strict=True):
        for arm, style in styles.items():
            line = where(rows, context=context, arm=arm)
            if not line:
                continue
            trials = [row["n"] for row in line]
            means = [100 * row["mean"] for row in line]
            off = [100 * (row["sd"] or 0.0) for row in line]
            low = [m - o for m, o in zip(means, off, strict=True)]
            high = [m + o for m, o in zip(means, off, strict=True)]
            axis.fill_between(trials, low, high, color=style.colour, alpha=0.12, linewidth=0)
            # marks at the powers of two, and at the last
            marked = [i for i, n in enumerate(trials) if n & (n - 1) == 0 or i == len(trials) - 1]
            axis.plot(trials, means, **style.marked_line, linewidth=1.6, markersize=4, markevery=marked)
        axis.set_title(context)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator([2**k for k in range(most.bit_length())]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    say_axes(figure, "search trials", "expected best validation accuracy (%)")
    handles = series_marks(styles, linewidth=1.6, markersize=4)
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK, handlelength=3)
    return figure


def sensitivity_data(inputs: Inputs) -> Rows:
    """Rows of the table ``sensitivity``: a cell's share of good trials, of the start-up points and of all."""
    rows = []
    for row in build_table(inputs, "sensitivity").to_pylist():
        for name, kind in _KINDS.items():
            named = {"cell": row["cell"], "arm": inputs.heads[row["cell"]]["arm"], "kind": kind}
            named |= {"n_blocks": row["n_blocks"], "n_trials": row["n_trials"]}
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
    columns=(*texts("cell arm kind"), *floats("share low high", "fraction of trials"), *shared("n_blocks n_trials")),
    empty="No search trial has been run yet.",
)
def draw_sensitivity(data: pa.Table, spec: Spec) -> Figure:
    """One line per cell, both shares beside one another."""
    rows = data.to_pylist()
    cells = grouped(rows, "cell")
    figure = Figure(figsize=(7.4, 0.9 + 0.27 * max(len(cells), 3)), layout="constrained")
    axis = figure.subplots()
    styles = arm_styles(spec, distinct(rows, "arm"))
    for middle, mine in enumerate(cells.values()):
        for row in mine:
            style, first = styles[row["arm"]], row["kind"] == _KINDS["share_startup"]
            y, fill = middle + (-0.14 if first else 0.14), "white" if first else style.colour
            if row["low"] is not None:
                axis.plot([100 * row["low"], 100 * row["high"]], [y, y], color=style.colour, linewidth=1.3)
            axis.plot([100 * row["share"]], [y], style.marker, color=style.colour, markerfacecolor=fill, markersize=5)
    for y, (first, *_) in enumerate(cells.values()):
        text = f"{first['n_trials']} trials, {first['n_blocks']} blocks"
        axis.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=MUTED)
    axis.set_yticks(range(len(cells)), list(cells))
    axis.set_ylim(len(cells) - 0.4, -0.6)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("share of trials in the good region (%)")
    axis.grid(visible=True, axis="x")
    axis.tick_params(axis="y", length=0)
    fills = {"share_startup": "white", "share": INK}
    shape: dict[str, Any] = {"marker": "o", "color": INK, "linestyle": "none", "markersize": 5}
    handles = [mark(**shape, markerfacecolor=fill, label=_KINDS[name]) for name, fill in fills.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure
