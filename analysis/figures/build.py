"""Draw registered figures and write them: SVG and PNG, and the data of each as csv beside them.

Figures of a report are drawn by several processes, since drawing takes most of a report's time.
"""

import contextlib
import io
import math
import multiprocessing
import os
import sys
import types
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.figures.style import RC, message, plain_logs
from analysis.inputs import Inputs
from analysis.words.columns import table_of
from analysis.words.export import render, write_bytes
from search_spaces.spec import Spec
from study.errors import UserError, nearest
from study.registry import FIGURES, discover

FORMATS = ("svg", "png")
_DPI = 160
# Fewer figures are drawn before another process has imported what it needs; more processes than this help little.
_FEW, _MOST_PROCESSES = 4, 4
# No date and no version in a file: the same results give the same bytes.
_METADATA = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


def figure_names() -> list[str]:
    """Names of all registered figures, in the order a report shows them."""
    discover("analysis.figures")
    return [entry.name for entry in sorted(FIGURES, key=lambda entry: entry.traits.get("place", math.inf))]


def figure_data(inputs: Inputs, name: str) -> pa.Table:
    """The table that a figure draws, made once. Raises ``UserError`` for an unknown name."""
    discover("analysis.figures")
    traits, held = FIGURES[name].traits, f"figure {name}"
    if held not in inputs.built:
        inputs.built[held] = table_of(traits["data"](inputs), traits.get("columns", ()))
    return inputs.built[held]


def draw(inputs: Inputs, name: str, formats: Iterable[str] = FORMATS, data: pa.Table | None = None) -> dict[str, bytes]:
    """One figure as bytes, by format; ``data``: of these rows alone. Raises ``UserError`` for an unknown name or format."""
    return _draw(name, figure_data(inputs, name) if data is None else data, inputs.spec, tuple(formats))


def draw_figure(inputs: Inputs, name: str) -> Figure:
    """One figure, for a notebook. Raises ``UserError`` for an unknown name."""
    with style.context(RC, after_reset=True):
        return _figure(name, figure_data(inputs, name), inputs.spec)


def _figure(name: str, data: pa.Table, spec: Spec) -> Figure:
    entry = FIGURES[name]
    empty = not data.num_rows and "empty" in entry.traits
    figure: Figure = message(entry.traits["empty"]) if empty else entry.build(data, spec)
    plain_logs(figure)
    return figure


def _draw(name: str, data: pa.Table, spec: Spec, formats: tuple[str, ...]) -> dict[str, bytes]:
    discover("analysis.figures")  # here too, for it may be another process
    files = {}
    # from matplotlib's own defaults: a user's matplotlibrc changes no figure
    with style.context(RC, after_reset=True):
        figure = _figure(name, data, spec)
        for form in formats:
            if form not in FORMATS:
                raise UserError(f"unknown figure format {form!r}{nearest(form, FORMATS)}")
            sink = io.BytesIO()
            # the canvas's own way of printing: savefig draws a figure twice, since it might have to be cut to its ink
            if form == "svg":
                FigureCanvasSVG(figure).print_svg(sink, metadata=_METADATA[form])  # type: ignore[no-untyped-call]
            else:
                figure.dpi = _DPI
                FigureCanvasAgg(figure).print_png(sink, metadata=_METADATA[form])  # type: ignore[no-untyped-call]
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
    written, data = {}, {}
    wanted = list(names)
    for name in wanted or figure_names():
        table = figure_data(inputs, name)
        if wanted or table.num_rows or FIGURES[name].traits.get("always"):
            data[name] = table
    for name, files in _draw_all(data, inputs.spec, tuple(formats)):
        files["csv"] = render(data[name], "csv")
        written[name] = [write_bytes(folder / f"{name}.{form}", drawn) for form, drawn in files.items()]
    return written


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Processes that are started meanwhile leave the main module alone: a user's script would run in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _draw_all(
    data: dict[str, pa.Table], spec: Spec, formats: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every figure in the order of ``data``. Other processes draw from its beginning, this one from its end."""
    ours = [name for name in data if FIGURES[name].build.__module__.startswith("analysis.figures.")]
    processes = min((os.cpu_count() or 1) - 1, _MOST_PROCESSES)
    if len(ours) < _FEW or processes < 1:
        yield from ((name, _draw(name, table, spec, formats)) for name, table in data.items())
        return
    here: dict[str, dict[str, bytes]] = {}
    # not forked: threads of Ray's and Arrow's may hold locks
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        with _no_main():
            there = {name: pool.submit(_draw, name, data[name], spec, formats) for name in ours}
        for name in reversed(data):
            if name not in there or there[name].cancel():
                here[name] = _draw(name, data[name], spec, formats)
        for name, table in data.items():
            try:
                yield name, here.get(name) or there[name].result()
            except BrokenExecutor:  # it was killed, or cannot be started here
                yield name, _draw(name, table, spec, formats)
