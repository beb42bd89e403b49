"""What commands print: every text as it is, on any terminal and into any pipe."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from study.errors import printable
from study.planning.plan import make_plan
from study.printing.console import open_console, print_table, say, say_heading
from study.printing.live import LiveView
from study.results.ledger import Contents

ODD = ["[bold]x[/bold]", "[/]", "a\\", ":smile:", "[link=http://x]y", "é漢±", "[1/2]"]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("text", ODD)
def test_text_is_printed_as_it_is(text, terminal):
    """Also on a console with markup, as a test or a library may open one."""
    console = Console(file=io.StringIO(), width=40, force_terminal=terminal, color_system=None)
    say(console, text)
    say_heading(console, text, text)
    print_table(console, [text, "n"], [[text, text]], title=text)
    assert console.file.getvalue().count(text) == 7


def test_nothing_is_cut_without_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console = open_console()
    print_table(console, ["cell", "note"], [["x" * 300, "y " * 300]])
    assert "x" * 300 in sys.stdout.getvalue() and "y " * 299 in sys.stdout.getvalue()


def test_nothing_is_cut_on_a_narrow_terminal():
    console = Console(file=io.StringIO(), width=30, force_terminal=True, color_system=None)
    print_table(console, ["cell", "n"], [["x" * 90, "1"]])
    assert console.file.getvalue().count("x") == 90


def test_the_live_view_shows_a_name_as_it_is(spec_of, monkeypatch):
    console = Console(file=io.StringIO(), width=80)
    plan = make_plan(spec_of())
    view = LiveView(plan, Contents(), console)
    view._best = "[red]1"
    console.print(view._display())
    assert "[red]1" in console.file.getvalue() and "small" in console.file.getvalue()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_terminal_that_lacks_a_character_shows_its_number(encoding):
    """A process of its own: its streams have the encoding from the start."""
    code = (
        "import sys; sys.argv[1:] = ['levels', 'nothing\\u6f22']; from study.cli import main\n"
        "try: main()\nfinally: print('\\u6f22\\u00e9')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": encoding, "PATH": ""}, check=False
    )
    shown = "漢é".encode(encoding, "backslashreplace")
    assert (
        done.returncode == 2
        and done.stdout.strip() == shown
        and "漢".encode(encoding, "backslashreplace") in done.stderr
    )


def test_a_message_does_not_steer_the_terminal():
    assert printable("\x1b[31mred\x07\x9b1m\ttab\nline\r") == r"\x1b[31mred\x07\x9b1m" + "\ttab\nline" + r"\r"
