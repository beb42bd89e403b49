"""Commands that show what a study has found."""

from typing import Annotated

import typer

from study.cli.options import (
    RESULTS,
    FromOption,
    SetOption,
    SpecArgument,
    StorageOption,
    TrackingOption,
    checked_spec,
    workspace_of,
)

commands = typer.Typer()


@commands.command()
def report(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    from_mlflow: FromOption = None,
) -> None:
    """Write tables, figures and one self-contained report.html."""
    from study.commands import show

    held, workspace = show.recorded(spec, override, storage, from_mlflow)
    typer.echo(show.report(held, workspace))


@commands.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A study's folder, its name, or URI#NAME in an MLflow store.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The study to compare it with, likewise.")],
    storage: StorageOption = RESULTS,
    form: Annotated[str, typer.Option("--format", help="text, md or json.")] = "text",
) -> None:
    """Show what changed from one study to another: specification, provenance, outcomes, effects, verdicts."""
    from analysis.comparison.two_studies import Side, compare_studies
    from study.commands.recorded import anywhere
    from study.printing.comparison import check_format, print_comparison
    from study.printing.console import open_console

    check_format(form)
    sides = [
        Side(inputs=held.inputs(), session=held.session, where=held.where)
        for held in (anywhere(a, storage), anywhere(b, storage))
    ]
    print_comparison(compare_studies(*sides), form, open_console())


@commands.command()
def ui(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    tracking_uri: TrackingOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 0,
    browse: Annotated[bool, typer.Option(help="Open the comparison in a browser.")] = True,
) -> None:
    """Open MLflow's UI on this study, at a ready comparison."""
    from study.commands import show

    checked = checked_spec(spec, override)
    show.ui(checked, workspace_of(checked, storage), tracking=tracking_uri, host=host, port=port, browse=browse)


@commands.command()
def export(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    table: Annotated[list[str], typer.Option(help="A table to write (all if left out); may be repeated.")] = [],  # noqa: B006
    formats: Annotated[list[str], typer.Option("--format", help="parquet, csv, md or tex; may be repeated.")] = [],  # noqa: B006
    from_mlflow: FromOption = None,
) -> None:
    """Write tables as Parquet, CSV, Markdown and LaTeX."""
    from study.commands import show

    held, workspace = show.recorded(spec, override, storage, from_mlflow)
    for paths in show.export(held, workspace, table, formats).values():
        for path in paths:
            typer.echo(path)
