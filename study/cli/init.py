"""The command ``init``."""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.commands import app


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the study, and of the files written here.")],
    kind: Annotated[str, typer.Option(help="What it compares: network, merge, attention or recipe.")] = "network",
) -> None:
    """Write NAME.yaml, commented, and the plug-in that it names, to begin a study of your own from."""
    from study.commands.init import begin, next_steps

    for path in begin(name, kind, Path()):
        typer.echo(f"wrote {path}")
    for line in next_steps(name, kind):
        typer.echo(f"  {line}")
