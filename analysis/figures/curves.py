"""Learning curves by arm: validation accuracy of every confirmed replicate, their median, and a band around it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import INK, context_styles, mark, panels, say_axes, thinned
from analysis.figures.subjects import arm_styles, networks
from analysis.inputs import Inputs
from analysis.words.columns import number, shared, texts
from analysis.words.rows import Rows, distinct, grouped
from search_spaces import Spec
from study.registry import FIGURES
from study.schema import FRACTION

_METRIC = "val/accuracy"
_MOST_LINES = 60
_BAND = (10, 50, 90)


def curves_data(inputs: Inputs) -> Rows:
    """One row per confirmed replicate and epoch."""
    heads = {
        row["trial_key"]: {**head, "trial_key": row["trial_key"], "state": row["state"]}
        for head, row in networks(inputs, ["trial_key"])
    }
    wanted = pc.and_(pc.equal(inputs.curves["phase"], "confirm"), pc.equal(inputs.curves["metric"], _METRIC))
    return [
        {**heads[point["trial_key"]], "epoch": point["epoch"], "val_accuracy": point["value"]}
        for point in inputs.curves.filter(wanted).to_pylist()
    ]


@FIGURES.register(
    "curves",
    title="Learning curves",
    place=4.2,
    always=True,
    formula="Validation accuracy over epochs, one panel an arm. Thick: median over replicates; band: 10th to 90th "
    "percentile; thin: each replicate. Of more than 60 replicates to a median every k-th is drawn.",
    source="",
    data=curves_data,
    columns=(
        *texts("trial_key arm context"),
        *shared("block replicate"),
        *texts("state"),
        *shared("epoch"),
        number("val_accuracy", FRACTION),
    ),
    empty="No confirmed network has been trained yet.",
)
def draw_curves(data: pa.Table, spec: Spec) -> Figure:
    """One panel per arm, in its colour; depth (and dataset) by line style."""
    rows = data.to_pylist()
    for row in rows:
        # a network that diverged has no accuracy from there on: drawn at nothing
        row["percent"] = 100 * (row["val_accuracy"] or 0.0)
    styles = context_styles(distinct(rows, "context"))
    by_arm = grouped(rows, "arm")
    colours = {arm: style.colour for arm, style in arm_styles(spec, by_arm).items()}
    figure, axes = panels(len(by_arm), 4, (2.45, 2.1))
    drawn = num_lines = 0
    lowest = 10 * (min(row["percent"] for row in rows) // 10)
    for axis, (arm, held) in zip(axes, by_arm.items(), strict=True):
        for context, mine in grouped(held, "context").items():
            line: dict[str, Any] = {"color": colours[arm], "linestyle": styles[context].linestyle}
            replicates = list(grouped(mine, "trial_key").values())
            shown = thinned(replicates, _MOST_LINES)
            drawn, num_lines = drawn + len(shown), num_lines + len(replicates)
            for replicate in shown:
                points = [(row["epoch"], row["percent"]) for row in replicate]
                axis.plot(*zip(*points, strict=True), linewidth=0.5, alpha=0.35, **line)
            by_epoch = grouped(mine, "epoch")
            values = [[row["percent"] for row in same] for same in by_epoch.values()]
            low, middle, high = np.array([np.percentile(same, _BAND) for same in values]).T
            axis.fill_between(list(by_epoch), low, high, color=colours[arm], alpha=0.18, linewidth=0)
            axis.plot(list(by_epoch), middle, linewidth=2.0, **line)
        states = dict(distinct(held, "trial_key", "state"))
        failed = sum(state in ("collapsed", "diverged") for state in states.values())
        axis.set_title(arm)
        text = f"n = {len(states)}" + (f", {failed} failed" if failed else "")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}
        axis.annotate(text, (0.97, 0.05), xycoords="axes fraction", ha="right", fontsize=8, bbox=box)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.set_ylim(lowest, 102 - 0.02 * lowest)
    of_all = f"      {drawn:,} of {num_lines:,} replicates drawn; medians are of all" if drawn < num_lines else ""
    say_axes(figure, f"epoch{of_all}", "validation accuracy (%)")
    if any(styles):
        handles = [
            mark(color=INK, linestyle=style.linestyle, linewidth=2, label=context) for context, style in styles.items()
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(styles), handlelength=3)
    return figure
