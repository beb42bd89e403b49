"""The hyperparameters each search chose, by arm, in the range they were searched in."""

from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis.figures.style import FAINT, INK, MUTED, mark, panel_grid, say_thinned, thinned
from analysis.figures.subjects import arm_styles, networks
from analysis.inputs import Inputs
from analysis.trials.table import setting_column
from analysis.words.columns import flag, number, shared, text, texts
from analysis.words.rows import Row, Rows, distinct, grouped
from search_spaces import Choice, FloatRange, Nuisance, Spec
from study.registry import FIGURES

# A winner in this outer share of a log range is flagged.
_OUTER = 0.1
_MOST_MARKS = 150


def hyperparameters_data(inputs: Inputs) -> Rows:
    """One row per confirmed replicate and nuisance hyperparameter: ``value`` of a range, ``choice`` of a choice."""
    rows = []
    for head, row in networks(inputs, ["boundary", *map(setting_column, inputs.spec.nuisance)]):
        for name in inputs.spec.nuisance:
            chosen = row[setting_column(name)]
            known = inputs.spec.widest(name)
            given = {"value": chosen, "choice": None}
            if isinstance(known, Choice):
                # as it is written: a column of numbers holds 0 as 0.0
                given = {"value": None, "choice": str(next((each for each in known.choices if each == chosen), chosen))}
            named = {**head, "cell": row["cell"], "hyperparameter": name}
            rows.append({**named, **given, "at_boundary": name in row["boundary"].split(",")})
    return rows


@FIGURES.register(
    "hyperparameters",
    title="Chosen hyperparameters",
    place=4.3,
    always=True,
    formula="Each mark is the winner of one search block. The white band is the inner part of the searched range; a winner "
    "in its outer tenth (shaded, where all cells have one range) is flagged by a black ring. Dotted: the default. "
    "Of more than 150 winners in a line every k-th is drawn.",
    source="https://github.com/google-research/tuning_playbook",
    data=hyperparameters_data,
    columns=(
        *texts("hyperparameter arm context cell"),
        *shared("block replicate"),
        number("value", "as configured"),
        text("choice"),
        flag("at_boundary"),
    ),
    empty="No confirmed network, or nothing was searched.",
)
def draw_hyperparameters(data: pa.Table, spec: Spec) -> Figure:
    """One panel per hyperparameter, one line per cell."""
    rows = data.to_pylist()
    cells, by_name = distinct(rows, "arm", "context"), grouped(rows, "hyperparameter")
    styles = arm_styles(spec, (arm for arm, _ in cells))
    figure, axes = panel_grid(1, len(by_name), (3.3, 0.25 * len(cells)), (2.1, 1.4), sharey=True)
    drawn = 0
    for axis, (name, mine) in zip(axes[0], by_name.items(), strict=True):
        nuisance = spec.widest(name)
        if isinstance(nuisance, FloatRange):
            _range(axis, nuisance, alike=nuisance == spec.nuisance[name])
        else:
            axis.set_xticks(range(len(nuisance.choices)), [str(choice) for choice in nuisance.choices])
            axis.set_xlim(-0.5, len(nuisance.choices) - 0.5)
        seen: dict[Any, int] = {}
        for (arm, context), same in grouped(mine, "arm", "context").items():
            shown, y = thinned(same, _MOST_MARKS), cells.index((arm, context))
            drawn += len(shown)
            for flagged in (False, True):
                marks = [_place(row, nuisance, y, seen) for row in shown if row["at_boundary"] is flagged]
                style: dict[str, Any] = {"color": styles[arm].colour, "markersize": 5.5, "linestyle": "none"}
                style |= {"markeredgecolor": INK, "markeredgewidth": 1.3} if flagged else {"markeredgewidth": 0}
                axis.plot(marks, [y] * len(marks), styles[arm].marker, alpha=0.8, **style)
        num = sum(row["at_boundary"] for row in mine)
        axis.set_title(f"{name}\nn = {len(mine)}" + (f", {num} at a boundary" if num else ""))
        axis.set_xlabel(f"{name}, log scale" if isinstance(nuisance, FloatRange) and nuisance.log else name)
        axis.grid(visible=True, axis="y")
    axes[0][0].set_ylim(len(cells) - 0.5, -0.5)
    axes[0][0].set_yticks(range(len(cells)), [f"{arm}  {context}".strip() for arm, context in cells])
    ring = mark(marker="o", color=FAINT, markeredgecolor=INK, linestyle="none", label="in the outer tenth of its range")
    default = mark(color=MUTED, linewidth=1, linestyle=":", label="default")
    figure.legend(handles=[ring, default], loc="outside lower right", ncols=2)
    say_thinned(figure, drawn, len(rows), "winners")
    return figure


def _place(row: Row, nuisance: Nuisance, y: int, seen: dict[Any, int]) -> float:
    """Where a winner stands in line ``y``; equal choices stand side by side, counted in ``seen``."""
    if row["choice"] is None:
        return float(row["value"])
    place = (y, row["choice"])
    seen[place] = seen.get(place, -1) + 1
    x = [str(choice) for choice in getattr(nuisance, "choices", [])].index(row["choice"])
    return float(x + 0.05 * (seen[place] + 1) // 2 * (-1) ** seen[place])


def _range(axis: Axes, nuisance: FloatRange, *, alike: bool) -> None:
    """``alike``: whether it is the range of all cells."""
    low, high = nuisance.low, nuisance.high
    if alike:
        axis.axvline(nuisance.default, color=MUTED, linewidth=1, linestyle=":")
    if nuisance.log:
        axis.set_xscale("log")
        marked = sorted({low, nuisance.default, high})
        axis.set_xticks(marked, [f"{x:g}" for x in marked])
        axis.xaxis.set_minor_formatter(NullFormatter())
        share = (high / low) ** _OUTER
        for start, end in ((low, low * share), (high / share, high)) if alike else ():
            axis.axvspan(start, end, color=FAINT, zorder=0)
        axis.set_xlim(low / share**0.3, high * share**0.3)
    else:
        axis.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
