"""Draw registered figures and write them: SVG and PNG, and the data of each as csv beside them.

Figures of a report are drawn by several processes, since drawing takes most of a report's time.
"""

import contextlib
import io
import math
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Self

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
    inputs: Inputs,
    folder: Path,
    names: Iterable[str] = (),
    formats: Iterable[str] = FORMATS,
    meanwhile: Callable[[], object] | None = None,
) -> dict[str, list[Path]]:
    """Write registered figures (default: all but empty ones) into ``folder``; return figure name -> files, csv last.

    ``meanwhile`` is called while other processes draw. Raises ``UserError`` for an unknown figure or format, or when the
    folder cannot be written.
    """
    written, wanted = {}, list(names)
    with _Drawing(inputs.spec, tuple(formats)) as drawing:
        # the last first: the first ones are of effects, which take longest to compute
        for name in reversed(wanted or figure_names()):
            table = figure_data(inputs, name)
            if wanted or table.num_rows or FIGURES[name].traits.get("always"):
                drawing.add(name, table)
        if meanwhile:
            meanwhile()
        for name, files in drawing.drawn():
            files["csv"] = render(drawing.data[name], "csv")
            written[name] = [write_bytes(folder / f"{name}.{form}", drawn) for form, drawn in files.items()]
    return dict(reversed(written.items()))


def _end_with_parent() -> None:
    """End this process when the one that started it is killed: its pipe tells it nothing, for it holds both ends."""

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Processes that are started meanwhile leave the main module alone: a user's script would run in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Drawing:
    """Figures that are drawn by other processes from the first one added, by this one from the last."""

    def __init__(self, spec: Spec, formats: tuple[str, ...]) -> None:
        self.data: dict[str, pa.Table] = {}
        self._given = spec, formats
        self._there: dict[str, Future[dict[str, bytes]]] = {}
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def add(self, name: str, table: pa.Table) -> None:
        """Have a figure drawn; processes are started once there are enough of them."""
        self.data[name] = table
        ours = [name for name in self.data if FIGURES[name].build.__module__.startswith("analysis.figures.")]
        processes = min((os.cpu_count() or 1) - 1, _MOST_PROCESSES)
        if len(ours) < _FEW or processes < 1:
            return
        with _no_main():
            if self._pool is None:
                # not forked: threads of Ray's and Arrow's may hold locks
                self._pool = ProcessPoolExecutor(
                    processes, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
                )
            for each in ours:
                if each not in self._there:
                    self._there[each] = self._pool.submit(_draw, each, self.data[each], *self._given)

    def drawn(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Every figure, in the order in which they were added."""
        here = {
            name: _draw(name, self.data[name], *self._given)
            for name in reversed(self.data)
            if name not in self._there or self._there[name].cancel()
        }
        for name, table in self.data.items():
            try:
                yield name, here.get(name) or self._there[name].result()
            except BrokenExecutor:  # it was killed, or cannot be started here
                yield name, _draw(name, table, *self._given)
