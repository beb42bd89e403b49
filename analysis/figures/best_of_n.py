"""https://arxiv.org/abs/1909.03004 -- what the best of n search trials reaches, so that a ranking shows for which budgets."""

from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures.style import INK, LINES, looks, mark, message, panels
from analysis.inputs import Inputs
from analysis.tables.best_of_n import best_of_n_rows
from analysis.trials.arms import context_name, has_datasets
from search_spaces.spec import Spec
from study.registry import FIGURES

_FRACTION = {"unit": "fraction of images"}
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("cell", "arm", "context")),
        *((name, pa.int64()) for name in ("n", "n_blocks")),
        *(pa.field(name, pa.float64(), metadata=_FRACTION) for name in ("mean", "sd", "lowest", "highest")),
    ]
)


def best_of_n_data(inputs: Inputs) -> pa.Table:
    """One row a cell and number of trials, from one to all."""
    several = has_datasets(inputs.trials)
    rows = [
        {name: row.get(name) for name in _SCHEMA.names} | {"context": context_name(row, dataset=several)}
        for row in best_of_n_rows(inputs)
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


@FIGURES.register(
    "best_of_n",
    title="Expected best of n trials",
    place=4.6,
    formula="Validation accuracy to expect of the best of n search trials, drawn at random from those that were run: mean "
    "over blocks; bands, one standard deviation over blocks to either side. Where lines cross, the ranking hangs on the "
    "budget of the search.",
    source="https://arxiv.org/abs/1909.03004",
    data=best_of_n_data,
    optional=True,
)
def draw_best_of_n(data: pa.Table, spec: Spec) -> Figure:
    """One panel a depth and dataset, one line an arm."""
    rows = data.to_pylist()
    if not rows:
        return message("No search trial has been run yet.")
    contexts = list(dict.fromkeys(row["context"] for row in rows))
    look = looks(row["arm"] for row in rows)
    figure, axes = panels(len(contexts), 2, (3.9, 3.0))
    most = max(row["n"] for row in rows)
    for axis, context in zip(axes, contexts, strict=True):
        for index, (name, arm) in enumerate(look.items()):
            line = [row for row in rows if (row["context"], row["arm"]) == (context, name)]
            if not line:
                continue
            trials = [row["n"] for row in line]
            means = [100 * row["mean"] for row in line]
            off = [100 * (row["sd"] or 0.0) for row in line]
            axis.fill_between(
                trials,
                [m - o for m, o in zip(means, off, strict=True)],
                [m + o for m, o in zip(means, off, strict=True)],
                color=arm.colour,
                alpha=0.12,
                linewidth=0,
            )
            axis.plot(
                trials, means, **_style(index, arm.colour), marker=arm.marker, markersize=4, markevery=_marked(trials)
            )
        axis.set_title(context)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator([2**k for k in range(most.bit_length())]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.supxlabel("search trials", fontsize=9)
    figure.supylabel("expected best validation accuracy (%)", fontsize=9)
    handles = [
        mark(**_style(index, arm.colour), marker=arm.marker, markersize=4, label=name)
        for index, (name, arm) in enumerate(look.items())
    ]
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK, handlelength=3)
    return figure


def _style(index: int, colour: str) -> dict[str, Any]:
    return {"color": colour, "linestyle": LINES[index % len(LINES)], "linewidth": 1.6}


def _marked(trials: list[int]) -> list[int]:
    """Positions of the powers of two, and of the last."""
    return [i for i, n in enumerate(trials) if n & (n - 1) == 0 or i == len(trials) - 1]
