"""Learning curves by arm: validation accuracy of every confirmed replicate, their median, and a band around it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import COLOURS, LINES, mark, message, panels, thinned
from analysis.inputs import Inputs
from analysis.trials.arms import arm_columns, arm_name, context_name, has_datasets
from analysis.trials.table import rows_of
from search_spaces.spec import Spec
from study.registry import FIGURES

_METRIC = "val/accuracy"
_MOST_LINES = 60
_BAND = (10, 50, 90)
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("trial_key", "arm", "context")),
        *((name, pa.int64()) for name in ("block", "replicate")),
        ("state", pa.string()),
        pa.field("epoch", pa.int64(), metadata={"unit": "epochs"}),
        pa.field("val_accuracy", pa.float64(), metadata={"unit": "fraction of images"}),
    ]
)


def curves_data(inputs: Inputs) -> pa.Table:
    """One row a confirmed replicate and epoch."""
    columns = ("trial_key", "search_block", "replicate", "state", *arm_columns(inputs.spec))
    trials = {row["trial_key"]: row for row in rows_of(inputs.trials, columns, phase="confirm")}
    wanted = pc.and_(pc.equal(inputs.curves["phase"], "confirm"), pc.equal(inputs.curves["metric"], _METRIC))
    several = has_datasets(inputs.trials)
    rows = []
    for point in inputs.curves.filter(wanted).to_pylist():
        row = trials[point["trial_key"]]
        named = {
            "trial_key": point["trial_key"],
            "arm": arm_name(inputs.spec, row),
            "context": context_name(row, dataset=several),
        }
        named |= {"block": row["search_block"], "replicate": row["replicate"], "state": row["state"]}
        rows.append(named | {"epoch": point["epoch"], "val_accuracy": point["value"]})
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


@FIGURES.register(
    "curves",
    title="Learning curves",
    place=4.2,
    formula="Validation accuracy over epochs, one panel an arm. Thick: median over replicates; band: 10th to 90th "
    "percentile; thin: each replicate. Of more than 60 replicates to a median every k-th is drawn.",
    source="",
    data=curves_data,
)
def draw_curves(data: pa.Table, spec: Spec) -> Figure:
    """One panel an arm; depth (and dataset) by colour and line style."""
    rows = data.to_pylist()
    if not rows:
        return message("No confirmed network has been trained yet.")
    arms, contexts = (list(dict.fromkeys(row[name] for row in rows)) for name in ("arm", "context"))
    figure, axes = panels(len(arms), 4, (2.45, 2.1))
    drawn = num_lines = 0
    lowest = 10 * (min(_percent(row["val_accuracy"]) for row in rows) // 10)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["arm"], row["context"]), []).append(row)
    for axis, arm in zip(axes, arms, strict=True):
        for i, context in enumerate(contexts):
            mine = groups.get((arm, context), [])
            style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
            replicates = list(_by(mine, "trial_key").values())
            shown = thinned(replicates, _MOST_LINES)
            drawn, num_lines = drawn + len(shown), num_lines + len(replicates)
            for replicate in shown:
                points = [(row["epoch"], _percent(row["val_accuracy"])) for row in replicate]
                axis.plot(*zip(*points, strict=True), linewidth=0.5, alpha=0.35, **style)
            by_epoch = _by(mine, "epoch")
            if not by_epoch:
                continue
            values = [[_percent(row["val_accuracy"]) for row in same] for same in by_epoch.values()]
            low, middle, high = np.array([np.percentile(same, _BAND) for same in values]).T
            axis.fill_between(list(by_epoch), low, high, color=style["color"], alpha=0.18, linewidth=0)
            axis.plot(list(by_epoch), middle, linewidth=2.0, **style)
        num = len({row["trial_key"] for row in rows if row["arm"] == arm})
        failed = len(
            {row["trial_key"] for row in rows if row["arm"] == arm and row["state"] in ("collapsed", "diverged")}
        )
        axis.set_title(arm)
        text = f"n = {num}" + (f", {failed} failed" if failed else "")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}
        axis.annotate(text, (0.97, 0.05), xycoords="axes fraction", ha="right", fontsize=8, bbox=box)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.set_ylim(lowest, 102 - 0.02 * lowest)
    of_all = f"      {drawn:,} of {num_lines:,} replicates drawn; medians are of all" if drawn < num_lines else ""
    figure.supxlabel(f"epoch{of_all}", fontsize=9)
    figure.supylabel("validation accuracy (%)", fontsize=9)
    if any(contexts):
        handles = [
            mark(color=COLOURS[i % len(COLOURS)], linestyle=LINES[i % len(LINES)], linewidth=2, label=context)
            for i, context in enumerate(contexts)
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(contexts), handlelength=3)
    return figure


def _by(rows: list[dict[str, Any]], name: str) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[name], []).append(row)
    return groups


def _percent(accuracy: float | None) -> float:
    """A network that diverged has no accuracy from there on: drawn at nothing."""
    return 0.0 if accuracy is None else 100 * accuracy
