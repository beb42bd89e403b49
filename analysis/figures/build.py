"""Draw registered figures and write them: SVG and PNG, and the data of each as csv beside them."""

import io
import math
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from analysis.figures.style import RC, message
from analysis.inputs import Inputs
from analysis.words.columns import table_of
from analysis.words.export import render, write_bytes
from study.errors import UserError, nearest
from study.registry import FIGURES, discover

FORMATS = ("svg", "png")
_DPI = 160
# No date and no version in a file: the same results give the same bytes.
_METADATA = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


def figure_names() -> list[str]:
    """Names of all registered figures, in the order a report shows them."""
    discover("analysis.figures")
    return [entry.name for entry in sorted(FIGURES, key=lambda entry: entry.traits.get("place", math.inf))]


def figure_data(inputs: Inputs, name: str) -> pa.Table:
    """The table that a figure draws. Raises ``UserError`` for an unknown name."""
    discover("analysis.figures")
    traits = FIGURES[name].traits
    return table_of(traits["data"](inputs), traits.get("columns", ()))


def draw(inputs: Inputs, name: str, formats: Iterable[str] = FORMATS) -> dict[str, bytes]:
    """One figure as bytes, by format. Raises ``UserError`` for an unknown name or format."""
    return _draw(name, figure_data(inputs, name), inputs, formats)


def _draw(name: str, data: pa.Table, inputs: Inputs, formats: Iterable[str]) -> dict[str, bytes]:
    files = {}
    # from matplotlib's own defaults: a user's matplotlibrc changes no figure
    with style.context(RC, after_reset=True):
        entry = FIGURES[name]
        empty = not data.num_rows and "empty" in entry.traits
        figure = message(entry.traits["empty"]) if empty else entry.build(data, inputs.spec)
        for form in formats:
            if form not in FORMATS:
                raise UserError(f"unknown figure format {form!r}{nearest(form, FORMATS)}")
            canvas = FigureCanvasSVG(figure) if form == "svg" else FigureCanvasAgg(figure)
            sink = io.BytesIO()
            canvas.print_figure(sink, format=form, dpi=_DPI, metadata=_METADATA[form])
            # places are fractions of the figure, and laying out takes as long as drawing: once is enough
            figure.set_layout_engine("none")
            files[form] = sink.getvalue()
    return files


def build_figures(
    inputs: Inputs, folder: Path, names: Iterable[str] = (), formats: Iterable[str] = FORMATS
) -> dict[str, list[Path]]:
    """Write registered figures (default: all but empty ones) into ``folder``; return figure name -> files, csv last.

    Raises ``UserError`` for an unknown figure or format, or when the folder cannot be written.
    """
    written = {}
    wanted = list(names)
    for name in wanted or figure_names():
        data = figure_data(inputs, name)
        if not (wanted or data.num_rows or FIGURES[name].traits.get("always")):
            continue
        files = _draw(name, data, inputs, formats)
        files["csv"] = render(data, "csv")
        written[name] = [write_bytes(folder / f"{name}.{form}", data) for form, data in files.items()]
    return written
