"""Predictions along the same lines between real samples, arm below arm.

Source: https://arxiv.org/abs/1710.09412
"""

import pyarrow as pa
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, INK, gap, mark, panel_grid, say_axes
from analysis.tables.kept import PICTURED, pictured_rows
from analysis.words.columns import floats, integer, number
from analysis.words.rows import distinct, where
from search_spaces.spec import Spec
from study.registry import FIGURES

_MOST_PAIRS = 4
# column, what it is called, colour, line style
_CURVES = (
    ("p_start", "class at the start", COLOURS[0], "-"),
    ("p_end", "class at the end", COLOURS[1], "--"),
    ("p_other", "likeliest other class", COLOURS[2], ":"),
)


@FIGURES.register(
    "paths",
    title="Predictions between real samples",
    place=3.3,
    formula="Temperature-scaled probabilities on the straight line from one test image (t = 0) to one of another class "
    "(t = 1), the same images in every row. The first pairs of those that are in the data.",
    source="https://arxiv.org/abs/1710.09412",
    # a network without the table has one row that says why in ``note``
    data=lambda inputs: pictured_rows(inputs, "path_picture", "curves"),
    columns=(
        *PICTURED,
        integer("pair", "identifier"),
        number("t", "fraction of the way"),
        *(integer(name, "class") for name in ("label_start", "label_end", "other")),
        *floats("p_start p_end p_other", "probability"),
    ),
    empty="No prediction has been followed between samples.",
)
def draw_paths(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per network, arms of a context below one another; one column per pair."""
    rows = data.to_pylist()
    networks = distinct(rows, "context", "arm", "note")
    pairs = sorted({row["pair"] for row in rows if row["pair"] is not None})[:_MOST_PAIRS]
    figure, axes = panel_grid(len(networks), len(pairs), (2.1, 1.45), (1.0, 0.7), sharex=True, sharey=True)
    for line, (context, arm, note) in zip(axes, networks, strict=True):
        line[0].set_ylabel("\n".join(filter(None, (arm, context, note))))
        for axis, pair in zip(line, pairs, strict=True):
            axis.grid(visible=True)
            points = where(rows, context=context, arm=arm, pair=pair)
            if not points:
                gap(axis, note)
            for name, _, colour, style in _CURVES if points else ():
                t, p = [row["t"] for row in points], [row[name] for row in points]
                axis.plot(t, p, color=colour, linestyle=style, linewidth=1.6, clip_on=False)
    for axis, pair in zip(axes[0], pairs, strict=True):
        # a study of several datasets has several classes at the ends
        ends = distinct(where(rows, pair=pair), "label_start", "label_end")
        axis.set_title(f"class {'; '.join(f'{start} to {end}' for start, end in ends)}")
    first = axes[0][0]
    first.set_ylim(0, 1)
    first.set_xlim(0, 1)
    first.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    first.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    say_axes(figure, "t", "probability")
    handles = [mark(color=colour, linestyle=style, linewidth=1.6, label=text) for _, text, colour, style in _CURVES]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, handlelength=3, labelcolor=INK)
    return figure
