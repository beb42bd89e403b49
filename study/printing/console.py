"""Where commands print, and how a line or a table is printed: every text as it is, on any terminal."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from study.errors import printable

# No table is so wide: without a terminal nothing is wrapped or cut.
_WIDE = 10_000


def open_console(*, quiet: bool = False) -> Console:
    """The console to print on; without a terminal no line is wrapped and no table cut. A ``quiet`` one prints nothing."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(width=width, markup=False, emoji=False, highlight=False, quiet=quiet)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """For the block, what is printed after the terminal, or the program at the pipe's other end, is gone is lost silently."""
    with (
        contextlib.redirect_stdout(cast(TextIO, _Lasting(sys.stdout))),
        contextlib.redirect_stderr(cast(TextIO, _Lasting(sys.stderr))),
    ):
        yield


class _Lasting:
    """A text stream that goes nowhere once it cannot be written; so from the start where there is none."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = Path(os.devnull).open("w") if stream is None else stream  # noqa: SIM115  for the process's life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._as_long_as_it_lasts():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._as_long_as_it_lasts():
            self._stream.flush()

    @contextlib.contextmanager
    def _as_long_as_it_lasts(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # the descriptor itself, because Python writes what it holds back at its end
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def say(console: Console, line: str) -> None:
    """Print a line as it is: wrapped at words on a terminal, whole elsewhere."""
    console.print(Text(printable(line)), soft_wrap=not console.is_terminal)


def say_heading(console: Console, text: str, rest: str = "") -> None:
    """Print a line in bold; ``rest``, if any, follows plainly."""
    console.print(
        Text.assemble((printable(text), "bold"), f"  {printable(rest)}" if rest else ""),
        soft_wrap=not console.is_terminal,
    )


def print_table(
    console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", num_left: int = 1
) -> None:
    """Print a table without borders under a bold ``title``: ``num_left`` columns flush left, the others flush right."""
    table = Table(box=None)
    for i, heading in enumerate(headings):
        # a cell that is too long goes on in the next line: nothing is cut
        table.add_column(Text(heading), justify="left" if i < num_left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if title:
        say_heading(console, title)
    console.print(table)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in a Markdown page, without padding, so that a changed row changes one line."""
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]
