"""docs/commands.md names every command and preset, and only those; the README is two screens."""

import re
from pathlib import Path

import typer

from search_spaces import presets
from study.cli import init, tools  # noqa: F401  they register commands
from study.cli.commands import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/commands.md").read_text()


def test_the_page_has_every_command_and_preset() -> None:
    commands, others = PAGE.split("## Presets")
    named = re.findall(r"^\| `([a-z0-9_]+)", commands, re.MULTILINE)
    assert sorted(named) == sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert sorted(re.findall(r"^\| `([a-z0-9_]+)`", others, re.MULTILINE)) == sorted(presets())


def test_the_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
