"""Where commands print, and how a line or a table is printed."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def open_console() -> Console:
    """The console to print on; without a terminal it is wide enough that tables are not cut."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def say(console: Console, line: str) -> None:
    """Print a line as it is: wrapped at words on a terminal, whole elsewhere."""
    console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def say_heading(console: Console, text: str) -> None:
    """Print a line in bold."""
    console.print(text, style="bold", highlight=False, markup=False)


def print_table(
    console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", num_left: int = 1
) -> None:
    """Print a table without borders under a bold ``title``: ``num_left`` columns flush left, the others flush right."""
    table = Table(box=None)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < num_left else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    if title:
        say_heading(console, title)
    console.print(table)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in a Markdown page, without padding, so that a changed row changes one line."""
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]
