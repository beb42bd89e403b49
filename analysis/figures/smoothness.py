"""Test accuracy against each claimed smoothness statistic, every confirmed network a mark."""

from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.style import INK, SeriesStyle, mark, panel_grid, say_thinned, series_marks, series_styles, thinned
from analysis.figures.subjects import main_statistics, networks
from analysis.inputs import Inputs
from analysis.trials.table import estimate_names
from analysis.words.columns import FRACTION, flag, number, shared, texts
from analysis.words.rows import Row, Rows, distinct, grouped, where
from analysis.words.wording import axis_text
from search_spaces.spec import Spec
from study.registry import FIGURES

_MOST_MARKS = 150
# An accuracy of one has no place on a scale of the logarithm of the error; it is drawn at half an image of a thousand.
_LEAST_ERROR = 0.0005
_TICKS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)


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
    styles = series_styles(distinct(rows, "arm"))
    figure, axes = panel_grid(len(contexts), len(statistics), (3.5, 2.9), (1.9, 0.5), sharex="col", sharey=True)
    for row in rows:
        # hollow marks: networks that enter no effect
        row["counts"] = row["state"] == "completed" and row["converged"]
    # collapsed networks lie far outside (no output, no slope): they are drawn at the border, not given the scale
    counted = where(rows, counts=True) or rows
    accuracies = _limits([_error(row) for row in counted], log=True)
    drawn = 0
    for line, context in zip(axes, contexts, strict=True):
        for axis, statistic in zip(line, statistics, strict=True):
            limits = _limits([row["value"] for row in where(counted, statistic=statistic)])
            mine = where(rows, context=context, statistic=statistic)
            # one call a kind of mark, in the order of the rows
            for (arm, full), same in grouped(mine, "arm", "counts").items():
                style, shown = styles[arm], thinned(same, _MOST_MARKS)
                drawn += len(shown)
                x = [_clipped(row["value"], limits) for row in shown]
                y = [_clipped(_error(row), accuracies) for row in shown]
                fill = style.colour if full else "none"
                shape: dict[str, Any] = {"markersize": 5, "alpha": 0.8, "clip_on": False}
                axis.plot(x, y, style.marker, color=style.colour, markerfacecolor=fill, **shape)
            axis.set_title(f"{context}, n = {len(mine)}" if context else f"n = {len(mine)}")
            axis.grid(visible=True)
            axis.set_xlim(*limits)
        line[0].set_ylabel("test accuracy (%)")
    _accuracy_axis(axes[0][0], accuracies)
    for axis, statistic in zip(axes[-1], statistics, strict=True):
        axis.set_xlabel(axis_text(statistic))
    figure.legend(handles=_handles(rows, styles), loc="outside right upper", labelcolor=INK)
    say_thinned(figure, drawn, len(rows), "networks")
    return figure


def _error(row: Row) -> float:
    return max(1 - float(row["test_accuracy"]), _LEAST_ERROR)


def _limits(values: list[float], *, log: bool = False) -> tuple[float, float]:
    """The range of ``values`` and a little more; about one where there are none."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    if log:
        return low / 1.3, high * 1.3
    more = 0.08 * (high - low) or 0.5
    return low - more, high + more


def _clipped(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _accuracy_axis(axis: Axes, errors: tuple[float, float]) -> None:
    """Accuracy upwards on the logarithm of the error (shared by all panels), ticks at round accuracies."""
    axis.set_yscale("log")
    axis.set_ylim(errors[1], errors[0])
    ticks = [accuracy for accuracy in _TICKS if errors[0] <= 1 - accuracy <= errors[1]]
    axis.set_yticks([1 - accuracy for accuracy in ticks], [f"{100 * accuracy:g}" for accuracy in ticks])
    axis.minorticks_off()


def _handles(rows: Rows, styles: dict[str, SeriesStyle]) -> list[Line2D]:
    handles = series_marks(styles, linestyle="none", markersize=5)
    if not all(row["counts"] for row in rows):
        hollow: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "linestyle": "none", "markersize": 5}
        handles.append(
            mark(color=INK, label="hollow: collapsed or\nnot converged; on the\nborder: beyond it", **hollow)
        )
    return handles
