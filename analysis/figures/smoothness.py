"""Test accuracy against each claimed smoothness statistic, every confirmed network a mark."""

from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.style import INK, Look, looks, mark, message, say_thinned, thinned
from analysis.inputs import Inputs
from analysis.trials.arms import arm_name, context_name, has_datasets
from analysis.trials.table import estimate_names, rows_of
from analysis.words.wording import outcome_text
from search_spaces.spec import Spec
from study.registry import FIGURES

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("arm", "context", "statistic")),
        *((name, pa.int64()) for name in ("block", "replicate")),
        ("state", pa.string()),
        *((name, pa.float64()) for name in ("test_accuracy", "value")),
        ("converged", pa.bool_()),
    ]
)
_MOST_STATISTICS = 3
_MOST_MARKS = 150
# An accuracy of one has no place on a scale of the logarithm of the error; it is drawn at half an image of a thousand.
_LEAST_ERROR = 0.0005
_TICKS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)


def smoothness_data(inputs: Inputs) -> pa.Table:
    """One row a confirmed network and statistic: those that claims name, else the first ones measured."""
    claimed = [o.name for claim in inputs.spec.claims.values() for o in claim.outcomes]
    measured = estimate_names(inputs.trials)
    statistics = [name for name in dict.fromkeys(claimed) if name in measured] or measured
    several = has_datasets(inputs.trials)
    rows = []
    for row in rows_of(inputs.trials, phase="confirm"):
        shared = {
            "arm": arm_name(inputs.spec, row),
            "context": context_name(row, dataset=several),
            "block": row["search_block"],
        }
        shared |= {"replicate": row["replicate"], "state": row["state"], "test_accuracy": row["test/accuracy"]}
        for name in statistics[:_MOST_STATISTICS]:
            if row[name] is not None and row["test/accuracy"] is not None:
                rows.append({**shared, "statistic": name, "value": row[name], "converged": row[f"{name}_converged"]})
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


@FIGURES.register(
    "smoothness",
    title="Accuracy against smoothness",
    place=2.0,
    formula="Each mark is one confirmed network; further left is smoother. Hollow: collapsed, or an estimate that did not "
    "converge; neither enters an effect, and on the border they lie beyond it. The accuracy axis is log error. Of more "
    "than 150 networks of an arm in a panel every k-th is drawn.",
    source="",
    data=smoothness_data,
)
def draw_smoothness(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels a depth and dataset, one column a statistic."""
    rows = data.to_pylist()
    if not rows:
        return message("No smoothness statistic has been measured on a confirmed network.")
    contexts, statistics = (list(dict.fromkeys(row[name] for row in rows)) for name in ("context", "statistic"))
    look = looks(row["arm"] for row in rows)
    figure = Figure(figsize=(1.9 + 3.5 * len(statistics), 0.5 + 2.9 * len(contexts)), layout="constrained")
    grid = figure.subplots(len(contexts), len(statistics), squeeze=False, sharex="col", sharey=True)
    # collapsed networks lie far outside (no output, no slope): they are drawn at the border, not given the scale
    counted = [row for row in rows if row["state"] == "completed" and row["converged"]] or rows
    accuracies = _limits([_error(row) for row in counted], log=True)
    drawn = 0
    for line, context in zip(grid, contexts, strict=True):
        for axis, statistic in zip(line, statistics, strict=True):
            limits = _limits([row["value"] for row in counted if row["statistic"] == statistic])
            mine = [row for row in rows if row["context"] == context and row["statistic"] == statistic]
            # one call a kind of mark, in the order of the rows
            for (name, full), same in _kinds(mine).items():
                shown = thinned(same, _MOST_MARKS)
                drawn += len(shown)
                axis.plot(
                    [_clipped(row["value"], limits) for row in shown],
                    [_clipped(_error(row), accuracies) for row in shown],
                    look[name].marker,
                    color=look[name].colour,
                    markerfacecolor=look[name].colour if full else "none",
                    markersize=5,
                    alpha=0.8,
                    linestyle="none",
                    clip_on=False,
                )
            axis.set_title(f"{context}, n = {len(mine)}" if context else f"n = {len(mine)}")
            axis.grid(visible=True)
            axis.set_xlim(*limits)
        line[0].set_ylabel("test accuracy (%)")
    _accuracy_axis(grid[0][0], accuracies)
    for axis, statistic in zip(grid[-1], statistics, strict=True):
        axis.set_xlabel(f"{outcome_text(statistic)}{', natural log' if statistic.endswith('_log') else ''}")
    figure.legend(handles=_handles(rows, look), loc="outside right upper", labelcolor=INK)
    say_thinned(figure, drawn, len(rows), "networks")
    return figure


def _kinds(rows: list[dict[str, Any]]) -> dict[tuple[str, bool], list[dict[str, Any]]]:
    """Arm, and whether the network counts in an effect -> its rows."""
    kinds: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault((row["arm"], row["state"] == "completed" and row["converged"]), []).append(row)
    return kinds


def _error(row: dict[str, Any]) -> float:
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


def _handles(rows: list[dict[str, Any]], look: dict[str, Look]) -> list[Line2D]:
    handles = [
        mark(marker=arm.marker, color=arm.colour, linestyle="none", markersize=5, label=name)
        for name, arm in look.items()
    ]
    if any(row["state"] != "completed" or not row["converged"] for row in rows):
        hollow: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "linestyle": "none", "markersize": 5}
        handles.append(
            mark(color=INK, label="hollow: collapsed or\nnot converged; on the\nborder: beyond it", **hollow)
        )
    return handles
