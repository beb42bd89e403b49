"""https://www.jstor.org/stable/2282901 (Page): outcomes over a declared dose."""

import math
from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.effects.readings import POOLED
from analysis.figures.style import INK, LINES, Look, looks, mark, message
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from analysis.trials.outcomes import METRIC_OUTCOMES
from analysis.words.wording import outcome_text, unit_of
from search_spaces.spec import Spec
from study.registry import FIGURES

_MOST_OUTCOMES = 3
_NAMES = ("name", "dataset", "stratum", "outcome", "scale", "dose", "levels", "mean", "sd", "n_pairs", "n_failures")


def dose_data(inputs: Inputs) -> pa.Table:
    """Rows of the table ``dose_response`` on test accuracy and the outcomes that claims name."""
    claimed = [outcome.name for claim in inputs.spec.claims.values() for outcome in claim.outcomes]
    wanted = list(dict.fromkeys([METRIC_OUTCOMES[0], *claimed]))[:_MOST_OUTCOMES]
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
    optional=True,
)
def draw_dose(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels a dose and dataset, one column an outcome, one line a stratum."""
    rows = [row for row in data.to_pylist() if row["mean"] is not None]
    if not rows:
        return message("The study declares no dose, or nothing has been trained yet.")
    outcomes = list(dict.fromkeys(row["outcome"] for row in rows))
    contexts = list(dict.fromkeys((row["name"], row["dataset"]) for row in rows))
    several = len({dataset for _, dataset in contexts}) > 1
    look = looks(row["stratum"] for row in rows)
    size = (2.3 + 3.1 * len(outcomes), 0.4 + 2.7 * len(contexts))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(contexts), len(outcomes), squeeze=False, sharex="row")
    for line, (name, dataset) in zip(grid, contexts, strict=True):
        for axis, outcome in zip(line, outcomes, strict=True):
            mine = [row for row in rows if (row["name"], row["dataset"], row["outcome"]) == (name, dataset, outcome)]
            if mine:
                _panel(axis, mine, look)
            axis.set_xlabel(f"dose: {name} ({dataset})" if several else f"dose: {name}")
            axis.grid(visible=True)
    if len(look) > 1:
        handles = [mark(**_style(look, name), markersize=5, label=name.replace("=", " ")) for name in look]
        figure.legend(handles=handles, loc="outside right upper", labelcolor=INK, handlelength=3)
    return figure


def _panel(axis: Axes, rows: list[dict[str, Any]], look: dict[str, Look]) -> None:
    outcome, is_ratio = rows[0]["outcome"], rows[0]["scale"] == "log ratio"
    unit = unit_of(outcome)
    doses = sorted({row["dose"] for row in rows})
    apart = 0.02 * (doses[-1] - doses[0])
    names = list(dict.fromkeys(row["stratum"] for row in rows))
    for i, name in enumerate(names):
        mine = sorted((row for row in rows if row["stratum"] == name), key=lambda row: float(row["dose"]))
        means = [unit.factor * row["mean"] for row in mine]
        spread = [row["sd"] or 0.0 for row in mine]
        off: list[list[float]] = [[unit.factor * s for s in spread]] * 2
        if is_ratio:
            # a factor up and down
            pairs = list(zip(means, spread, strict=True))
            off = [[m - m * math.exp(-s) for m, s in pairs], [m * math.exp(s) - m for m, s in pairs]]
        x = [row["dose"] + apart * (i - (len(names) - 1) / 2) for row in mine]
        axis.errorbar(x, means, off, **_style(look, name), markersize=5, elinewidth=0.9, capsize=2)
    if is_ratio:
        axis.set_yscale("log")
    counts = [row["n_pairs"] for row in rows]
    axis.set_title(f"n = {min(counts)}" if len(set(counts)) == 1 else f"n = {min(counts)} to {max(counts)}")
    text = {"%": " (%)", " nat": " (nat)"}.get(unit.level, ", natural log" if unit.difference == "log" else "")
    axis.set_ylabel(f"{outcome_text(outcome)}{text}")


def _style(look: dict[str, Look], name: str) -> dict[str, Any]:
    index = list(look).index(name)
    width = 2.2 if name == POOLED else 1.2
    return {
        "color": look[name].colour,
        "marker": look[name].marker,
        "linestyle": LINES[index % len(LINES)],
        "linewidth": width,
    }
