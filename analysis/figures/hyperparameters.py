"""The hyperparameters each search chose, by arm, in the range they were searched in."""

from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis.figures.style import FAINT, INK, MUTED, looks, mark, message, say_thinned, thinned
from analysis.inputs import Inputs
from analysis.trials.arms import arm_columns, arm_name, context_name, has_datasets
from analysis.trials.table import rows_of, setting_column
from search_spaces import FloatRange, Nuisance, Spec
from study.registry import FIGURES

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("hyperparameter", "arm", "context", "cell")),
        *((name, pa.int64()) for name in ("block", "replicate")),
        ("value", pa.float64()),
        ("choice", pa.string()),
        ("at_boundary", pa.bool_()),
    ]
)
# METHOD: a winner in the outer tenth of a log range is flagged.
_OUTER = 0.1
_MOST_MARKS = 150


def hyperparameters_data(inputs: Inputs) -> pa.Table:
    """One row a confirmed replicate and nuisance hyperparameter: ``value`` of a range, ``choice`` of a choice."""
    several = has_datasets(inputs.trials)
    rows = []
    settings = map(setting_column, inputs.spec.nuisance)
    columns = ("search_block", "replicate", "boundary", *settings, *arm_columns(inputs.spec))
    for row in rows_of(inputs.trials, columns, phase="confirm"):
        named = {"arm": arm_name(inputs.spec, row), "context": context_name(row, dataset=several), "cell": row["cell"]}
        named |= {"block": row["search_block"], "replicate": row["replicate"]}
        for name, nuisance in inputs.spec.nuisance.items():
            chosen = row[setting_column(name)]
            is_range = isinstance(nuisance, FloatRange)
            given = {"value": chosen if is_range else None, "choice": None if is_range else str(chosen)}
            flag = {"at_boundary": name in row["boundary"].split(",")}
            rows.append({**named, "hyperparameter": name, **given, **flag})
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


@FIGURES.register(
    "hyperparameters",
    title="Chosen hyperparameters",
    place=4.3,
    formula="Each mark is the winner of one search block. The white band is the inner part of the searched range; a winner "
    "in its outer tenth (shaded) is flagged by a black ring. Dotted: the default. "
    "Of more than 150 winners in a line every k-th is drawn.",
    source="https://github.com/google-research/tuning_playbook",
    data=hyperparameters_data,
)
def draw_hyperparameters(data: pa.Table, spec: Spec) -> Figure:
    """One panel a hyperparameter, one line a cell."""
    rows = data.to_pylist()
    if not rows:
        return message("No confirmed network, or nothing was searched.")
    cells = list(dict.fromkeys((row["arm"], row["context"]) for row in rows))
    names = list(dict.fromkeys(row["hyperparameter"] for row in rows))
    look = looks(arm for arm, _ in cells)
    figure = Figure(figsize=(2.1 + 3.3 * len(names), 0.25 * len(cells) + 1.4), layout="constrained")
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    drawn = 0
    for axis, name in zip(grid, names, strict=True):
        mine = [row for row in rows if row["hyperparameter"] == name]
        nuisance = spec.nuisance[name]
        if isinstance(nuisance, FloatRange):
            _range(axis, nuisance)
        else:
            axis.set_xticks(range(len(nuisance.choices)), [str(choice) for choice in nuisance.choices])
            axis.set_xlim(-0.5, len(nuisance.choices) - 0.5)
        seen: dict[Any, int] = {}
        lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in mine:
            lines.setdefault((row["arm"], row["context"]), []).append(row)
        for (arm, context), same in lines.items():
            shown, y = thinned(same, _MOST_MARKS), cells.index((arm, context))
            drawn += len(shown)
            for flag in (False, True):
                marks = [_place(row, nuisance, y, seen) for row in shown if row["at_boundary"] is flag]
                style: dict[str, Any] = {"color": look[arm].colour, "markersize": 5.5, "linestyle": "none"}
                style |= {"markeredgecolor": INK, "markeredgewidth": 1.3} if flag else {"markeredgewidth": 0}
                axis.plot(marks, [y] * len(marks), look[arm].marker, alpha=0.8, **style)
        flagged = sum(row["at_boundary"] for row in mine)
        axis.set_title(f"{name}, n = {len(mine)}" + (f", {flagged} at a boundary" if flagged else ""))
        axis.set_xlabel(f"{name}, log scale" if isinstance(nuisance, FloatRange) and nuisance.log else name)
        axis.grid(visible=True, axis="y")
    grid[0].set_ylim(len(cells) - 0.5, -0.5)
    grid[0].set_yticks(range(len(cells)), [f"{arm}  {context}".strip() for arm, context in cells])
    ring = mark(marker="o", color=FAINT, markeredgecolor=INK, linestyle="none", label="in the outer tenth of its range")
    default = mark(color=MUTED, linewidth=1, linestyle=":", label="default")
    figure.legend(handles=[ring, default], loc="outside lower right", ncols=2)
    say_thinned(figure, drawn, len(rows), "winners")
    return figure


def _place(row: dict[str, Any], nuisance: Nuisance, y: int, seen: dict[Any, int]) -> float:
    """Where a winner stands in line ``y``; equal choices stand side by side, counted in ``seen``."""
    if row["choice"] is None:
        return float(row["value"])
    place = (y, row["choice"])
    seen[place] = seen.get(place, -1) + 1
    x = [str(choice) for choice in getattr(nuisance, "choices", [])].index(row["choice"])
    return float(x + 0.05 * (seen[place] + 1) // 2 * (-1) ** seen[place])


def _range(axis: Axes, nuisance: FloatRange) -> None:
    low, high = nuisance.low, nuisance.high
    axis.axvline(nuisance.default, color=MUTED, linewidth=1, linestyle=":")
    if nuisance.log:
        axis.set_xscale("log")
        marked = sorted({low, nuisance.default, high})
        axis.set_xticks(marked, [f"{x:g}" for x in marked])
        axis.xaxis.set_minor_formatter(NullFormatter())
        share = (high / low) ** _OUTER
        axis.axvspan(low, low * share, color=FAINT, zorder=0)
        axis.axvspan(high / share, high, color=FAINT, zorder=0)
        axis.set_xlim(low / share**0.3, high * share**0.3)
    else:
        axis.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
