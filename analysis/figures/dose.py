"""Outcomes over a declared dose."""

import math
from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.effects.readings import POOLED
from analysis.figures.style import INK, SeriesStyle, context_styles, mark, message, panel_grid
from analysis.figures.subjects import main_outcomes
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from analysis.words.rows import Rows, distinct, grouped, where
from analysis.words.wording import axis_text, unit_of
from search_spaces import Spec
from study.registry import FIGURES

_NAMES = ("name", "dataset", "stratum", "outcome", "scale", "dose", "levels", "mean", "sd", "n_pairs", "n_failures")


def dose_data(inputs: Inputs) -> pa.Table:
    """Rows of the table ``dose_response`` on test accuracy and the outcomes that claims name."""
    wanted = main_outcomes(inputs.spec)
    table = build_table(inputs, "dose_response").select(_NAMES)
    return table.filter(pa.array([name in wanted for name in table["outcome"].to_pylist()], pa.bool_()))


@FIGURES.register(
    "dose",
    title="Outcome over dose",
    place=2.4,
    formula="Mean over the replicates that completed at every dose; bars, one standard deviation over replicates to either "
    "side (of the logarithm, where ratios are compared). Whether there is a trend is said by the table of trends.",
    source="https://www.jstor.org/stable/2282901",
    data=dose_data,
)
def draw_dose(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per dose and dataset, one column per outcome, one line per stratum."""
    rows = [row for row in data.to_pylist() if row["mean"] is not None]
    if not rows:
        return message("The study declares no dose, or nothing has been trained yet.")
    outcomes, contexts = distinct(rows, "outcome"), distinct(rows, "name", "dataset")
    several = len(distinct(rows, "dataset")) > 1
    styles = context_styles(distinct(rows, "stratum"))
    figure, axes = panel_grid(len(contexts), len(outcomes), (3.1, 2.7), (2.3, 0.4), sharex="row")
    for line, (name, dataset) in zip(axes, contexts, strict=True):
        for axis, outcome in zip(line, outcomes, strict=True):
            mine = where(rows, name=name, dataset=dataset, outcome=outcome)
            if mine:
                _panel(axis, mine, styles)
            axis.set_xlabel(f"dose: {name} ({dataset})" if several else f"dose: {name}")
            axis.grid(visible=True)
    if len(styles) > 1:
        handles = [mark(**_line(styles, name), label=name.replace("=", " ")) for name in styles]
        figure.legend(handles=handles, loc="outside right upper", labelcolor=INK, handlelength=3)
    return figure


def _panel(axis: Axes, rows: Rows, styles: dict[str, SeriesStyle]) -> None:
    outcome, is_ratio = rows[0]["outcome"], rows[0]["scale"] == "log ratio"
    factor = unit_of(outcome).factor
    doses = sorted({row["dose"] for row in rows})
    apart = 0.02 * (doses[-1] - doses[0])
    strata = grouped(rows, "stratum")
    for i, (name, held) in enumerate(strata.items()):
        mine = sorted(held, key=lambda row: float(row["dose"]))
        means = [factor * row["mean"] for row in mine]
        spread = [row["sd"] or 0.0 for row in mine]
        off: list[list[float]] = [[factor * s for s in spread]] * 2
        if is_ratio:
            # a factor up and down
            pairs = list(zip(means, spread, strict=True))
            off = [[m - m * math.exp(-s) for m, s in pairs], [m * math.exp(s) - m for m, s in pairs]]
        x = [row["dose"] + apart * (i - (len(strata) - 1) / 2) for row in mine]
        axis.errorbar(x, means, off, **_line(styles, name), elinewidth=0.9, capsize=2)
    if is_ratio:
        axis.set_yscale("log")
    least, most = min(row["n_pairs"] for row in rows), max(row["n_pairs"] for row in rows)
    axis.set_title(f"n = {least}" if least == most else f"n = {least} to {most}")
    axis.set_ylabel(axis_text(outcome))


def _line(styles: dict[str, SeriesStyle], name: str) -> dict[str, Any]:
    return {**styles[name].marked_line, "linewidth": 2.2 if name == POOLED else 1.2, "markersize": 5}
