"""https://arxiv.org/abs/1710.09412 (mixup): predictions along the same lines between real samples, arm below arm."""

from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, INK, gap, mark, message
from analysis.inputs import Inputs
from analysis.tables.pictured import pictured_rows
from search_spaces.spec import Spec
from study.registry import FIGURES

_MOST_PAIRS = 4
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("context", "arm", "trial_key", "note")),
        ("pair", pa.int64()),
        pa.field("t", pa.float64(), metadata={"unit": "fraction of the way"}),
        *((name, pa.int64()) for name in ("label_start", "label_end", "other")),
        *((name, pa.float64()) for name in ("p_start", "p_end", "p_other")),
    ]
)
# column, what it is called, colour, line style
_CURVES = (
    ("p_start", "class at the start", COLOURS[0], "-"),
    ("p_end", "class at the end", COLOURS[1], "--"),
    ("p_other", "likeliest other class", COLOURS[2], ":"),
)


def paths_data(inputs: Inputs) -> pa.Table:
    """One row a pictured network, pair and point; a network without them has one row that says why in ``note``."""
    return pa.Table.from_pylist(pictured_rows(inputs, "path_picture", "curves"), schema=_SCHEMA)


@FIGURES.register(
    "paths",
    title="Predictions between real samples",
    place=3.3,
    formula="Temperature-scaled probabilities on the straight line from one test image (t = 0) to one of another class "
    "(t = 1), the same images in every row. The first pairs of those that are in the data.",
    source="https://arxiv.org/abs/1710.09412",
    data=paths_data,
    optional=True,
)
def draw_paths(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels a network, arms of a context below one another; one column a pair."""
    rows = data.to_pylist()
    if not rows:
        return message("No prediction has been followed between samples.")
    networks = list(dict.fromkeys((row["context"], row["arm"], row["note"]) for row in rows))
    pairs = sorted({row["pair"] for row in rows if row["pair"] is not None})[:_MOST_PAIRS]
    figure = Figure(figsize=(1.0 + 2.1 * len(pairs), 0.7 + 1.45 * len(networks)), layout="constrained")
    grid = figure.subplots(len(networks), len(pairs), squeeze=False, sharex=True, sharey=True)
    for line, (context, arm, note) in zip(grid, networks, strict=True):
        mine = [row for row in rows if (row["context"], row["arm"]) == (context, arm)]
        line[0].set_ylabel("\n".join(filter(None, (arm, context, note))))
        for axis, pair in zip(line, pairs, strict=True):
            axis.grid(visible=True)
            points = [row for row in mine if row["pair"] == pair]
            if not points:
                gap(axis, note)
            for name, _, colour, style in _CURVES if points else ():
                t, p = [row["t"] for row in points], [row[name] for row in points]
                axis.plot(t, p, color=colour, linestyle=style, linewidth=1.6, clip_on=False)
    for axis, pair in zip(grid[0], pairs, strict=True):
        axis.set_title(_pair_text([row for row in rows if row["pair"] == pair]))
    grid[0][0].set_ylim(0, 1)
    grid[0][0].set_xlim(0, 1)
    grid[0][0].set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    grid[0][0].set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    figure.supxlabel("t", fontsize=9)
    figure.supylabel("probability", fontsize=9)
    handles = [mark(color=colour, linestyle=style, linewidth=1.6, label=text) for _, text, colour, style in _CURVES]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, handlelength=3, labelcolor=INK)
    return figure


def _pair_text(rows: list[dict[str, Any]]) -> str:
    """The classes at the ends; a study of several data sets has several."""
    texts = dict.fromkeys(f"{row['label_start']} to {row['label_end']}" for row in rows)
    return f"class {'; '.join(texts)}"
