"""Predictions between real samples: along the lines of two, arm below arm, and on the plane of three.

Source: https://arxiv.org/abs/1710.09412, https://arxiv.org/abs/2203.08124
"""

from typing import Any

import numpy as np
import pyarrow as pa
import scipy.ndimage
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from analysis.figures.style import COLOURS, INK, MUTED, gap, mark, panel_grid, say_axes, title_panel
from analysis.inputs import Inputs
from analysis.tables.kept import PICTURED, pictured_rows
from analysis.words.columns import floats, integer, number, texts
from analysis.words.rows import Row, Rows, distinct, where
from search_spaces.spec import Spec
from study.registry import FIGURES

_MOST_PAIRS = 4
# column, what it is called, colour, line style
_CURVES = (
    ("p_start", "class at the start", COLOURS[0], "-"),
    ("p_end", "class at the end", COLOURS[1], "--"),
    ("p_other", "likeliest other class", COLOURS[2], ":"),
)
_MOST_PLANES = 2
# A region smaller than this share of the plane has no number written into it.
_LEAST_SHARE = 0.02
# Radius about a sample, as a share of the plane's width, that its disc takes up.
_DISC = 0.05
# Tol 2021, "light" and "pale": told apart with any colour vision; dark text reads on all
_COLOURS = (
    "#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00", "#DDDDDD", "#CCBBDD",
)  # fmt: skip


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


def planes_data(inputs: Inputs) -> Rows:
    """Rows of kind ``sample`` (true label) and ``point`` (predicted label) on the first planes; else a ``note`` says why."""
    rows: Rows = []
    places: dict[tuple[str | None, int], Row] = {}
    for row in pictured_rows(inputs, "decision_regions", "corners"):
        if row.get("plane") is None:
            rows.append(row)
        elif row["plane"] < _MOST_PLANES:
            places[row["trial_key"], row["plane"]] = row
            rows.append({**row, "kind": "sample"})
    points = [
        row
        for row in pictured_rows(inputs, "decision_regions", "labels")
        if (row["trial_key"], row.get("plane")) in places
    ]
    last = max((row["row"] for row in points), default=0) or 1
    for row in points:
        place = places[row["trial_key"], row["plane"]]
        x = place["x_low"] + (place["x_high"] - place["x_low"]) * row["column"] / last
        y = place["y_low"] + (place["y_high"] - place["y_low"]) * row["row"] / last
        rows.append({**row, "kind": "point", "x": x, "y": y})
    return rows


@FIGURES.register(
    "planes",
    title="Decision regions between three samples",
    place=3.4,
    formula="Predicted class on the plane through three test images of different classes (white discs: true class), the "
    "same in every column and true to scale; class colours are shared. The number of connected regions stands below.",
    source="https://arxiv.org/abs/2203.08124",
    data=planes_data,
    columns=(
        *PICTURED,
        *texts("kind"),
        integer("plane", "identifier"),
        integer("label", "class"),
        *floats("x y", "pixel intensity, Euclidean"),
    ),
    empty="No decision regions have been drawn.",
)
def draw_planes(data: pa.Table, spec: Spec) -> Figure:
    """One row of panels per context and plane, one column per arm."""
    rows = data.to_pylist()
    arms = distinct(rows, "arm")
    planes = sorted({row["plane"] for row in rows if row["plane"] is not None})
    places = [(context, plane) for context in distinct(rows, "context") for plane in planes]
    figure, axes = panel_grid(len(places), len(arms), (2.5, 2.5), (1.2, 0.4))
    for line, (context, plane) in zip(axes, places, strict=True):
        for axis, arm in zip(line, arms, strict=True):
            mine = where(rows, context=context, arm=arm)
            _panel(axis, mine, plane)
            title_panel(axis, arm, context, mine, drawn=bool(mine) and mine[0]["plane"] is not None)
    classes = sorted({row["label"] for row in where(rows, kind="point")})
    handles = [Patch(facecolor=_colour(label), edgecolor=MUTED, label=f"class {label}") for label in classes]
    figure.legend(handles=handles, loc="outside right upper", labelcolor=INK)
    return figure


def _panel(axis: Axes, rows: Rows, plane: int) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    points = where(rows, kind="point", plane=plane)
    if not points:
        gap(axis, rows[0]["note"] if rows else "not in this study")
        return
    x, y = (np.array(sorted({row[name] for row in points})) for name in ("x", "y"))
    labels = np.array([row["label"] for row in points]).reshape(len(y), len(x))
    classes = np.unique(labels)
    colours = ListedColormap([_colour(int(label)) for label in classes])
    dx, dy = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    extent = (x[0] - dx, x[-1] + dx, y[0] - dy, y[-1] + dy)
    shown = np.searchsorted(classes, labels)
    axis.imshow(
        shown, colours, vmin=-0.5, vmax=len(classes) - 0.5, extent=extent, origin="lower", interpolation="nearest"
    )
    axis.add_collection(LineCollection(_borders(x, y, labels), colors=INK, linewidths=0.9))
    samples = where(rows, kind="sample", plane=plane)
    num = _numbers(axis, x, y, labels, samples)
    for row in samples:
        axis.plot(row["x"], row["y"], "o", color="white", markeredgecolor=INK, markersize=11, zorder=3)
        text: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 7.5, "color": INK, "zorder": 4}
        axis.text(row["x"], row["y"], str(row["label"]), **text)
    axis.set_xlabel(f"{num} region{'' if num == 1 else 's'}, {len(classes)} class{'' if len(classes) == 1 else 'es'}")


def _numbers(axis: Axes, x: NDArray[Any], y: NDArray[Any], labels: NDArray[Any], samples: list[dict[str, Any]]) -> int:
    """Write its class into every region that is large enough, clear of the samples; return the number of regions."""
    clear = np.ones(labels.shape, dtype=bool)
    for row in samples:
        clear &= np.hypot(x[None, :] - row["x"], y[:, None] - row["y"]) > _DISC * np.ptp(x)
    num = 0
    for label in np.unique(labels):
        regions, count = scipy.ndimage.label(labels == label)
        num += count
        for region in range(1, count + 1):
            inside = (regions == region) & clear
            if inside.mean() >= _LEAST_SHARE:
                # the point farthest from all that the number must not touch
                depth = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
                i, j = np.unravel_index(int(depth.argmax()), depth.shape)
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "color": INK, "weight": "bold"}
                axis.text(x[j], y[i], str(label), **style)
    return num


def _borders(x: NDArray[Any], y: NDArray[Any], labels: NDArray[Any]) -> list[list[tuple[float, float]]]:
    """Edges between neighbouring points of different labels, halfway between them."""
    dx, dy = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    upright = [[(x[j] + dx, y[i] - dy), (x[j] + dx, y[i] + dy)] for i, j in np.argwhere(np.diff(labels, axis=1))]
    level = [[(x[j] - dx, y[i] + dy), (x[j] + dx, y[i] + dy)] for i, j in np.argwhere(np.diff(labels, axis=0))]
    return upright + level


def _colour(label: int) -> str:
    return _COLOURS[label % len(_COLOURS)]
