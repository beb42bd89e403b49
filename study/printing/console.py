"""https://rich.readthedocs.io/en/stable/console.html: where commands print, and how a line is printed."""

import sys

from rich.console import Console


def open_console() -> Console:
    """The console to print on; where there is no terminal, wide enough that tables are not cut."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def say(console: Console, line: str) -> None:
    """Print a line as it is: wrapped at words on a terminal, whole elsewhere."""
    console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
