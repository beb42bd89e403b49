"""Accuracy against smoothness: every confirmed network a mark, and each arm's path, to compare arms at one accuracy."""

import textwrap
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import INK, MUTED, mark, panel_grid, say_thinned, series_marks, thinned
from analysis.figures.subjects import arm_styles, networks
from analysis.inputs import Inputs
from analysis.tables.matched import BUDGETS, Paths, all_paths, smoothness_outcomes
from analysis.trials.outcomes import main_statistics
from analysis.trials.table import estimate_names
from analysis.words.columns import counts, flag, number, shared, texts
from analysis.words.rows import Row, Rows, distinct, grouped, where
from analysis.words.wording import Unit, axis_text, unit_of
from search_spaces.spec import Spec
from study.registry import FIGURES
from study.schema import FRACTION

_MOST_MARKS = 150
# An accuracy of one has no place on a scale of the logarithm of the error; it is drawn at half an image of a thousand.
_LEAST_ERROR = 0.0005
_TICKS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
# of a line beside an axis
_MOST_CHARACTERS = 34


def smoothness_data(inputs: Inputs) -> Rows:
    """One row per confirmed network and statistic: those that claims name, else the first ones measured."""
    statistics = main_statistics(inputs.spec, estimate_names(inputs.trials))
    rows = []
    for head, row in networks(inputs, ["test/accuracy", *statistics, *(f"{name}_converged" for name in statistics)]):
        head = {**head, "state": row["state"], "test_accuracy": row["test/accuracy"]}
        for name in statistics:
            if row[name] is not None and row["test/accuracy"] is not None:
                rows.append({**head, "statistic": name, "value": row[name], "converged": row[f"{name}_converged"]})
    return rows


@FIGURES.register(
    "smoothness",
    title="Accuracy against smoothness",
    place=2.0,
    always=True,
    formula="Each mark is one confirmed network; further left is smoother. Hollow: collapsed, or an estimate that did not "
    "converge; neither enters an effect, and on the border they lie beyond it. The accuracy axis is log error. Of more "
    "than 150 networks of an arm in a panel every k-th is drawn.",
    source="",
    data=smoothness_data,
    columns=(
        *texts("arm context statistic"),
        *shared("block replicate"),
        *texts("state"),
        number("test_accuracy", FRACTION),
        number("value", "of the statistic"),
        flag("converged"),
    ),
    empty="No smoothness statistic has been measured on a confirmed network.",
)
def draw_smoothness(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per depth and dataset, one column per statistic."""
    rows = data.to_pylist()
    contexts, statistics = distinct(rows, "context"), distinct(rows, "statistic")
    styles = arm_styles(spec, distinct(rows, "arm"))
    figure, axes = panel_grid(len(contexts), len(statistics), (3.5, 2.9), (1.9, 0.5), sharex="col", sharey=True)
    for row in rows:
        row["value"] *= unit_of(row["statistic"]).factor
        # hollow marks: networks that enter no effect
        row["counts"] = row["state"] == "completed" and row["converged"]
    # collapsed networks lie far outside (no output, no slope): they are drawn at the border, not given the scale
    counted = where(rows, counts=True) or rows
    errors = [_error(row) for row in counted]
    most, least = 1.3 * max(errors), min(errors) / 1.3
    drawn = 0
    for line, context in zip(axes, contexts, strict=True):
        for axis, statistic in zip(line, statistics, strict=True):
            limits = _limits([row["value"] for row in where(counted, statistic=statistic)])
            mine = where(rows, context=context, statistic=statistic)
            # one call a kind of mark, in the order of the rows
            for (arm, full), same in grouped(mine, "arm", "counts").items():
                style, shown = styles[arm], thinned(same, _MOST_MARKS)
                drawn += len(shown)
                x = np.clip([row["value"] for row in shown], *limits)
                y = np.clip([_error(row) for row in shown], least, most)
                fill = style.colour if full else "none"
                shape: dict[str, Any] = {"markersize": 5, "alpha": 0.8, "clip_on": False}
                axis.plot(x, y, style.marker, color=style.colour, markerfacecolor=fill, **shape)
            axis.set_title(f"{context}, n = {len(mine)}" if context else f"n = {len(mine)}")
            axis.grid(visible=True)
            axis.set_xlim(*limits)
        line[0].set_ylabel("test accuracy (%)")
    _accuracy_axis(axes[0][0], least, most)
    for axis, statistic in zip(axes[-1], statistics, strict=True):
        axis.set_xlabel(axis_text(statistic))
    handles = series_marks(styles, linestyle="none", markersize=5)
    if not all(row["counts"] for row in rows):
        hollow: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "linestyle": "none", "markersize": 5}
        text = "hollow: collapsed or\nnot converged; on the\nborder: beyond it"
        handles.append(mark(color=INK, label=text, **hollow))
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK)
    say_thinned(figure, drawn, len(rows), "networks")
    return figure


def _error(row: Row) -> float:
    return max(1 - float(row["test_accuracy"]), _LEAST_ERROR)


def _limits(values: list[float]) -> tuple[float, float]:
    """The range of ``values`` and a little more; about one where there are none."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    more = 0.08 * (high - low) or 0.5
    return low - more, high + more


def _accuracy_axis(axis: Axes, least: float, most: float) -> None:
    """Accuracy upwards on the logarithm of the error (shared by all panels), ticks at round accuracies."""
    axis.set_yscale("log")
    axis.set_ylim(most, least)
    ticks = [accuracy for accuracy in _TICKS if least <= 1 - accuracy <= most]
    axis.set_yticks([1 - accuracy for accuracy in ticks], [f"{100 * accuracy:g}" for accuracy in ticks])
    axis.minorticks_off()


def matched_data(inputs: Inputs) -> Rows:
    """One row per cell, path, statistic and point: means over the networks that completed and have a value there."""
    grid, outcomes = inputs.grid, smoothness_outcomes(inputs)
    cells, completed = (np.array(grid.confirm[name].to_pylist()) for name in ("cell", "state"))
    rows: Rows = []
    for paths in all_paths(inputs, outcomes):
        for cell in dict.fromkeys(cells.tolist()):
            networks = np.flatnonzero((cells == cell) & (completed == "completed"))
            head = {"cell": cell, "arm": inputs.heads[cell]["arm"], "context": inputs.heads[cell]["context"]}
            for outcome in outcomes:
                named = {**head, "statistic": outcome.name, "scale": outcome.scale}
                rows += [{**named, **point} for point in _points(paths, outcome.name, networks)]
    return rows


def _points(paths: Paths, outcome: str, networks: np.ndarray) -> Rows:
    accuracy, values = paths.accuracy[networks], paths.values[outcome][networks]
    there = np.isfinite(accuracy) & np.isfinite(values)
    return [
        {
            "along": paths.along,
            "point": float(point),
            "n": int(there[:, k].sum()),
            "val_accuracy": float(accuracy[there[:, k], k].mean()),
            "value": float(values[there[:, k], k].mean()),
        }
        for k, point in enumerate(paths.points)
        if there[:, k].any()
    ]


@FIGURES.register(
    "matched",
    title="Smoothness along accuracy",
    place=2.1,
    formula="Means over networks; lower is smoother, further right more accurate. Marks on thick lines: fully annealed "
    "trainings of a share and all of the epochs (the last is the largest). Thin dashed lines: the confirmed training itself, "
    "not annealed. Arms compare where their lines lie over one accuracy; elsewhere accuracy differs too.",
    source="",
    data=matched_data,
    columns=(
        *texts("cell arm context along statistic scale"),
        number("point", "of the epochs (budgets) or epochs (training)"),
        *counts("n"),
        number("val_accuracy", FRACTION),
        number("value", "of the statistic, its logarithm where scale is log ratio"),
    ),
    empty="No training is shortened, and nothing is measured during training.",
)
def draw_matched(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per depth and dataset, one column per statistic."""
    rows = data.to_pylist()
    statistics = main_statistics(spec, distinct(rows, "statistic"))
    contexts, ways = distinct(rows, "context"), distinct(rows, "along")
    styles = arm_styles(spec, distinct(rows, "arm"))
    figure, axes = panel_grid(len(contexts), len(statistics), (3.5, 2.9), (1.9, 0.6), sharex="row", sharey="col")
    for line, context in zip(axes, contexts, strict=True):
        for axis, statistic in zip(line, statistics, strict=True):
            for arm, style in styles.items():
                for along in ways:
                    mine = where(rows, context=context, statistic=statistic, arm=arm, along=along)
                    unit = unit_of(statistic, mine[0]["scale"]) if mine else Unit()
                    x, y = [100 * r["val_accuracy"] for r in mine], [unit.factor * r["value"] for r in mine]
                    if along == BUDGETS:
                        axis.plot(x, y, color=style.colour, linewidth=1.8, marker=style.marker, markersize=4)
                        axis.plot(x[-1:], y[-1:], color=style.colour, marker=style.marker, markersize=7)
                    else:
                        axis.plot(x, y, color=style.colour, linewidth=0.9, linestyle="--")
            axis.set_title(context)
            axis.grid(visible=True)
            axis.set_xlabel("validation accuracy (%)")
            text = axis_text(statistic, where(rows, statistic=statistic)[0]["scale"])
            axis.set_ylabel(textwrap.fill(text, _MOST_CHARACTERS))
    handles = series_marks(styles, linestyle="-", linewidth=1.8, markersize=4)
    handles.append(mark(color=MUTED, linewidth=0.9, linestyle="--", label="during training,\nnot annealed"))
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK)
    return figure
