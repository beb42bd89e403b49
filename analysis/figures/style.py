"""How all figures are drawn: colours, markers, line styles, panels, legends.

People with any colour vision tell the colours apart (Okabe and Ito, Color Universal Design). Markers and line styles differ
too, so figures can be read in grey.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from analysis.words.rows import Rows

# yellow is left out: it cannot be seen on white; black and grey are kept for text and intervals
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p")
LINES = ("-", "--", ":", "-.")
GREYS = ("#1a1a1a", "#7b838e", "#454c55", "#a3aab4")
_LEAST_WIDTH = 4.2
_Mark = TypeVar("_Mark")
INK, MUTED, FAINT = "#1a1a1a", "#5f6670", "#e4e7eb"

RC: dict[Any, Any] = {
    # a name with two dollars is a name, no formula
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "fmm-study",
}


@dataclass(frozen=True, kw_only=True)
class SeriesStyle:
    """Colour, marker and line style of one series: an arm, a stratum, a context."""

    colour: str
    marker: str
    linestyle: str

    @property
    def line(self) -> dict[str, Any]:
        """Matplotlib's properties of a line without markers."""
        return {"color": self.colour, "linestyle": self.linestyle}

    @property
    def marked_line(self) -> dict[str, Any]:
        """Matplotlib's properties of a line with markers."""
        return {**self.line, "marker": self.marker}


def series_styles(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """A style per name, by order of appearance; the first 63 differ in colour or marker."""
    return {
        name: SeriesStyle(
            colour=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], linestyle=LINES[i % len(LINES)]
        )
        for i, name in enumerate(dict.fromkeys(names))
    }


def context_styles(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """A style for each of what is no arm (a depth, a stratum): grey, so that none is taken for an arm's colour."""
    return {
        name: SeriesStyle(
            colour=GREYS[i % len(GREYS)], marker=MARKERS[-1 - i % len(MARKERS)], linestyle=LINES[i % len(LINES)]
        )
        for i, name in enumerate(dict.fromkeys(names))
    }


def panel_grid(
    num_rows: int, num_columns: int, panel: tuple[float, float], margin: tuple[float, float], **shared: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure and its panels (num_rows, num_columns): ``panel`` inches each, ``margin`` inches for what is around them."""
    size = (margin[0] + panel[0] * num_columns, margin[1] + panel[1] * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(num_rows, num_columns, squeeze=False, **shared)


def panels(num: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of ``num`` equal panels, ``columns`` per row, each of ``size`` inches, sharing both axes."""
    columns = max(1, min(num, columns))
    rows = -(-num // columns)
    figure = Figure(figsize=(max(columns * size[0], _LEAST_WIDTH), rows * size[1] + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten().tolist()
    for axis in axes[num:]:
        axis.set_axis_off()
    for axis in axes[:num]:
        axis.grid(visible=True)
        # panels above an empty place keep their numbers
        axis.tick_params(labelbottom=True)
    return figure, axes[:num]


def thinned(marks: Sequence[_Mark], most: int) -> list[_Mark]:
    """``marks``, or every k-th of them where there are more than ``most``, in their order."""
    return list(marks[:: max(1, -(-len(marks) // most))])


def say_thinned(figure: Figure, drawn: int, of: int, what: str) -> None:
    """Say under a figure that it draws ``drawn`` of ``of`` marks; nothing where it draws all."""
    if drawn < of:
        text = f"{drawn:,} of {of:,} {what} drawn, evenly chosen; numbers, means and intervals are of all"
        figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=MUTED)


class _PlainLog(LogFormatter):
    """Labels the ticks that matplotlib labels, by the number."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def plain_logs(figure: Figure) -> None:
    """Label logarithmic axes 0.01, not by the source of a formula: formulas are not read (``RC``)."""
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        if isinstance(axis.get_major_formatter(), LogFormatter):
            axis.set_major_formatter(_PlainLog())
        if isinstance(axis.get_minor_formatter(), LogFormatter):
            axis.set_minor_formatter(_PlainLog())


def say_axes(figure: Figure, x: str, y: str, **style: Any) -> None:
    """Label axes that all panels share."""
    figure.supxlabel(x, fontsize=9, **style)
    figure.supylabel(y, fontsize=9, **style)


def title_panel(axis: Axes, arm: str, context: str, rows: Rows, *, drawn: bool) -> None:
    """Head a network's panel by arm and context, and by what became of the network where it is ``drawn`` all the same."""
    state = f" ({rows[0]['note']})" if drawn and rows[0]["note"] else ""
    axis.set_title(f"{arm}, {context}{state}" if context else f"{arm}{state}", fontsize=9)


def mark(**style: Any) -> Line2D:
    """A legend's entry."""
    return Line2D([], [], **style)


def series_marks(styles: Mapping[str, SeriesStyle], **shape: Any) -> list[Line2D]:
    """A legend's entries, one per series: its line and marker, with the properties ``shape``."""
    return [mark(**{**style.marked_line, **shape}, label=name) for name, style in styles.items()]


def gap(axis: Axes, text: str) -> None:
    """A panel that says why there is nothing in it."""
    axis.grid(visible=False)
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=MUTED)


def message(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(6.4, 1.2), layout="constrained")
    figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED)
    return figure
