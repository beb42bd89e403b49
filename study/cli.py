"""The command line. Thin: it parses, calls, and prints; heavy imports stay inside commands so that --help is quick."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from search_spaces import Spec
    from study.workspace import Workspace

app = typer.Typer(
    name="fmm-study",
    help="Is feature map multiplication what makes attention help CNNs? Plan, run and analyse ablation studies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="A preset's name (digits) or a path to a YAML file.")]
StorageOption = Annotated[Path, typer.Option("--storage", help="Folder under which each study has its own.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the specification, e.g. blocks=2.")
]
RESULTS = Path("results")


@app.command()
def plan(spec: SpecArgument, override: SetOption = []) -> None:  # noqa: B006
    """Show cells, trials, cost and power of a study; runs nothing."""
    from rich.console import Console

    from study.describe import print_plan
    from study.plan import make_plan

    print_plan(make_plan(_spec(spec, override)), Console())


@app.command()
def run(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    address: Annotated[str | None, typer.Option(help="A running Ray cluster; this machine alone if left out.")] = None,
    num_cpus: Annotated[int | None, typer.Option(help="Cores to use on this machine (all if left out).", min=1)] = None,
) -> None:
    """Run a study, or continue it: what is finished is never run again."""
    from study import driver

    checked = _spec(spec, override)
    if not driver.run(checked, _workspace(checked, storage), address=address, num_cpus=num_cpus):
        typer.echo("Stopped. The same command continues; nothing is lost.", err=True)
        raise typer.Exit(130)


@app.command()
def status(spec: SpecArgument, storage: StorageOption = RESULTS, override: SetOption = []) -> None:  # noqa: B006
    """Show what is done, waiting, diverged, collapsed, failed."""
    from rich.console import Console

    from study.describe import print_status
    from study.ledger import read_ledger
    from study.plan import make_plan

    checked = _spec(spec, override)
    workspace = _workspace(checked, storage)
    print_status(make_plan(checked), read_ledger(workspace.ledger), workspace, Console())


@app.command()
def export(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    table: Annotated[list[str], typer.Option(help="A table to write (all if left out); may be repeated.")] = [],  # noqa: B006
    formats: Annotated[list[str], typer.Option("--format", help="parquet, csv, md or tex; may be repeated.")] = [],  # noqa: B006
) -> None:
    """Write tables as Parquet, CSV, Markdown and LaTeX."""
    from study import driver

    checked = _spec(spec, override)
    for paths in driver.export(checked, _workspace(checked, storage), table, formats).values():
        for path in paths:
            typer.echo(path)


def _spec(name_or_path: str, override: list[str]) -> "Spec":
    from search_spaces import load_spec

    return load_spec(name_or_path, override)


def _workspace(spec: "Spec", storage: Path) -> "Workspace":
    from study.workspace import Workspace

    return Workspace(storage / spec.name)


def main() -> None:
    """Entry point: a fault that the user can mend is one line on stderr and exit status 2."""
    command: Callable[..., Any] = app
    try:
        command()
    except ValueError as error:
        from search_spaces import SpecError
        from study.errors import UserError

        if not isinstance(error, (UserError, SpecError)):
            raise
        sys.stderr.write(f"fmm-study: {error}\n")
        sys.exit(2)
