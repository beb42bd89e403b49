"""Arms' means over the levels of another factor: where an effect does not depend on it, lines are parallel."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.effects.paired import cell_values
from analysis.figures.style import INK, SeriesStyle, panel_grid, series_marks
from analysis.figures.subjects import line_styles, main_outcomes
from analysis.inputs import Inputs
from analysis.stats.spread import spread
from analysis.trials.arms import arm_name
from analysis.trials.grid import ConfirmGrid, GridCell
from analysis.trials.outcomes import ReadOutcome, outcomes_of
from analysis.trials.table import setting_column
from analysis.words.columns import OF_SCALE, floats, integer, texts
from analysis.words.rows import Rows, distinct, grouped, where
from analysis.words.wording import axis_text, unit_of
from search_spaces import Level, Spec
from study.registry import FIGURES


def interactions_data(inputs: Inputs) -> Rows:
    """One row per dataset, factor that a contrast is crossed with, outcome, line (levels of all other factors) and level.

    Means are of completed networks; limits, at 1 - alpha by inverting the sign-flip test, are null where n is too small.
    """
    spec, grid = inputs.spec, inputs.grid
    factors = dict.fromkeys(row["factor"] for row in inputs.interactions if row["factor"] != "dataset")
    known = {outcome.name: outcome for outcome in outcomes_of(spec, inputs.trials)}
    rows: Rows = []
    for factor in factors:
        levels = _ordered(grid, factor)
        lines: dict[tuple[str, str], dict[str, int]] = {}
        for i, cell in enumerate(grid.cells):
            lines.setdefault((cell.dataset, _line(spec, cell, factor)), {})[_level(cell, factor)] = i
        for outcome in (known[name] for name in main_outcomes(spec)):
            for (dataset, line), cells in lines.items():
                head = {"dataset": dataset, "factor": factor, "line": line}
                head |= {"outcome": outcome.name, "scale": outcome.scale}
                points = [
                    {**head, "level": level, "place": place, **_numbers(grid, outcome, cells[level], spec.alpha)}
                    for place, level in enumerate(levels)
                    if level in cells
                ]
                # a line needs two ends
                rows += [p for p in points if p["n"]] if sum(p["n"] > 0 for p in points) > 1 else []
    return sorted(rows, key=lambda row: (list(factors).index(row["factor"]), row["dataset"]))


def _level(cell: GridCell, factor: str) -> str:
    """The level of ``factor``; attention and its form go together."""
    level, form = cell.levels.get(factor), cell.levels.get("attention_form")
    return f"{level}.{form}" if factor == "attention" and form not in (None, "none") else str(level)


def _ordered(grid: ConfirmGrid, factor: str) -> list[str]:
    """Numbers by size; names as the study lists them."""
    known: dict[str, Level | None] = {_level(cell, factor): cell.levels.get(factor) for cell in grid.cells}
    numbers = {text: value for text, value in known.items() if isinstance(value, int | float)}
    return sorted(numbers, key=lambda text: numbers[text]) if len(numbers) == len(known) else list(known)


def _line(spec: Spec, cell: GridCell, factor: str) -> str:
    """The levels of all factors but ``factor`` and the dataset."""
    hidden = {factor, "dataset"} | ({"attention_form"} if factor == "attention" else set())
    levels = {name: None if name in hidden else cell.levels.get(name) for name in spec.factor_names()}
    name = arm_name(spec, {"cell": "all", **{setting_column(key): level for key, level in levels.items()}})
    depth = levels.get("depth")
    return name if depth is None else f"{name}, depth {depth}"


def _numbers(grid: ConfirmGrid, outcome: ReadOutcome, cell: int, alpha: float) -> dict[str, Any]:
    values = cell_values(grid, outcome, [cell])[0]
    values = values[np.isfinite(values)]
    found = spread(values, alpha)
    low, high = found["ci_low"], found["ci_high"]
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        low = high = None
    return {"n": len(values), "mean": found["mean"], "low": low, "high": high}


@FIGURES.register(
    "interactions",
    title="Means over another factor",
    place=1.6,
    formula="Mean of each arm at the levels of another factor, with the interval of the mean (inverted sign-flip test; none "
    "below six networks). Parallel lines: the difference of two arms does not depend on the factor; lines that cross or run "
    "apart: it does. Intervals hold what blocks share, so whether two arms differ, and whether that depends on the factor, "
    "is said by the tables of effects and interactions.",
    source="https://www.statsmodels.org/stable/generated/statsmodels.graphics.factorplots.interaction_plot.html",
    data=interactions_data,
    columns=(
        *texts("dataset factor level line outcome scale"),
        integer("place", "position of the level"),
        integer("n", "networks"),
        *floats("mean low high", OF_SCALE),
    ),
    empty="No contrast is crossed with another factor, or nothing has been trained yet.",
)
def draw_interactions(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per factor and dataset, one column per outcome."""
    rows = data.to_pylist()
    outcomes, contexts = distinct(rows, "outcome"), distinct(rows, "factor", "dataset")
    several = len(distinct(rows, "dataset")) > 1
    styles = line_styles(spec, distinct(rows, "line"))
    figure, axes = panel_grid(len(contexts), len(outcomes), (3.0, 2.8), (2.1, 0.4), sharex="row", sharey="col")
    for line, (factor, dataset) in zip(axes, contexts, strict=True):
        for axis, outcome in zip(line, outcomes, strict=True):
            mine = where(rows, factor=factor, dataset=dataset, outcome=outcome)
            _panel(axis, mine, styles)
            axis.set_xlabel(f"{factor} ({dataset})" if several else factor)
            if mine:
                axis.set_ylabel(axis_text(outcome, mine[0]["scale"]))
    handles = series_marks(styles, linewidth=1.5, markersize=5)
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK, handlelength=3)
    return figure


def _panel(axis: Axes, rows: Rows, styles: dict[str, SeriesStyle]) -> None:
    lines = grouped(rows, "line")
    ticks = dict(sorted((row["place"], row["level"]) for row in rows))
    factor = unit_of(rows[0]["outcome"], rows[0]["scale"]).factor if rows else 1.0
    for i, (name, mine) in enumerate(lines.items()):
        # beside one another, so that intervals can be told apart
        x = [row["place"] + 0.3 * (i - (len(lines) - 1) / 2) / max(len(lines), 4) for row in mine]
        for at, row in zip(x, mine, strict=True):
            if row["low"] is not None:
                limits = [factor * row["low"], factor * row["high"]]
                axis.plot([at, at], limits, color=styles[name].colour, linewidth=1.0, alpha=0.7)
        means = [factor * row["mean"] for row in mine]
        axis.plot(x, means, **styles[name].marked_line, linewidth=1.5, markersize=5)
    axis.set_xticks(list(ticks), list(ticks.values()))
    if ticks:
        axis.set_xlim(min(ticks) - 0.35, max(ticks) + 0.35)
    axis.grid(visible=True, axis="y")
