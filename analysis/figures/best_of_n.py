"""What the best of n search trials reaches, so that a ranking shows for which budgets it holds.

Source: https://arxiv.org/abs/1909.03004
"""

import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures.style import INK, panels, say_axes, series_marks, series_styles
from analysis.tables.best_of_n import best_of_n_rows
from analysis.words.columns import FRACTION, counts, floats, texts
from analysis.words.rows import distinct, where
from search_spaces import Spec
from study.registry import FIGURES


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
    styles = series_styles(distinct(rows, "arm"))
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
