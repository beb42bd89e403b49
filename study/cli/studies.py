"""Commands on a study: plan, run, check, and show what was found."""

from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.options import (
    RESULTS,
    AddressOption,
    CpusOption,
    FromOption,
    PriceOption,
    SetOption,
    SpecArgument,
    StorageOption,
    TrackingOption,
    opened,
)

if TYPE_CHECKING:
    from search_spaces import Spec
    from study.commands.start import RunOptions
    from study.results.workspace import Workspace

commands = typer.Typer()


@commands.command()
def plan(spec: SpecArgument, override: SetOption = [], price: PriceOption = None) -> None:
    """Show cells, trials, cost and power of a study; runs nothing."""
    from search_spaces import load_spec
    from study.planning.plan import make_plan
    from study.printing.console import open_console
    from study.printing.describe import print_plan

    print_plan(make_plan(load_spec(spec, override), needs_data=False), open_console(), price)


@commands.command()
def cost(
    spec: SpecArgument,
    cell: Annotated[str, typer.Option(help="The cell to show; the first if left out.")] = "",
    override: SetOption = [],
) -> None:
    """Show what each layer of a cell costs, and the total of every other cell; runs nothing."""
    from search_spaces import load_spec
    from study.planning.plan import make_plan
    from study.printing.console import open_console
    from study.printing.cost import print_cost

    print_cost(make_plan(load_spec(spec, override), needs_data=False), cell, open_console())


@commands.command()
def run(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    address: AddressOption = None,
    num_cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
    max_hours: Annotated[
        float | None,
        typer.Option(
            help="Begin nothing more once trials have held GPUs (cores, without GPUs) for this long in all.", min=0
        ),
    ] = None,
    max_money: Annotated[float | None, typer.Option(help="The same in money, at --price.", min=0)] = None,
    price: PriceOption = None,
) -> None:
    """Run a study, or continue it: what is finished is never run again."""
    from study.commands.start import RunOptions
    from study.resources.allowance import Allowance

    allowance = Allowance.of(max_hours=max_hours, max_money=max_money, price=price)
    options = RunOptions(address=address, num_cpus=num_cpus, tracking=tracking_uri, allowance=allowance)
    _drive(*opened(spec, override, storage), options)


@commands.command()
def status(spec: SpecArgument, storage: StorageOption = RESULTS, override: SetOption = []) -> None:
    """Show what is done, waiting, diverged, collapsed, failed."""
    from study.planning.plan import make_plan
    from study.printing.console import open_console
    from study.printing.describe import print_status
    from study.results.ledger import read_ledger

    checked, workspace = opened(spec, override, storage)
    print_status(make_plan(checked), read_ledger(workspace.ledger), workspace, open_console())


@commands.command()
def retry(
    spec: SpecArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Run failed replicates again.")] = False,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    address: AddressOption = None,
    num_cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Run failed replicates once more, then whatever follows from them."""
    from study.commands.start import RunOptions
    from study.errors import UserError

    if not failed:
        raise UserError("retry runs failed replicates again: fmm-study retry SPEC --failed")
    options = RunOptions(address=address, num_cpus=num_cpus, tracking=tracking_uri, retry_failed=True)
    _drive(*opened(spec, override, storage), options)


@commands.command()
def audit(
    spec: SpecArgument, storage: StorageOption = RESULTS, override: SetOption = [], tracking_uri: TrackingOption = None
) -> None:
    """Check that ledger, Optuna, tables and MLflow agree; exit 1 and a list where they do not."""
    from study.commands import show

    faults, counted = show.check(*opened(spec, override, storage), tracking=tracking_uri)
    for line in [*faults, counted]:
        typer.echo(line)
    if faults:
        raise typer.Exit(1)


@commands.command()
def report(
    spec: SpecArgument, storage: StorageOption = RESULTS, override: SetOption = [], from_mlflow: FromOption = None
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
    studies = [anywhere(a, storage), anywhere(b, storage)]
    sides = [Side(inputs=held.inputs, session=held.session, where=held.where) for held in studies]
    print_comparison(compare_studies(*sides), form, open_console())


@commands.command()
def ui(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    tracking_uri: TrackingOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 0,
    browse: Annotated[bool, typer.Option(help="Open the comparison in a browser.")] = True,
) -> None:
    """Open MLflow's UI on this study, at a ready comparison."""
    from study.commands import show

    checked, workspace = opened(spec, override, storage)
    show.ui(checked, workspace, tracking=tracking_uri, host=host, port=port, browse=browse)


@commands.command()
def export(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    table: Annotated[list[str], typer.Option(help="A table to write (all if left out); may be repeated.")] = [],
    formats: Annotated[list[str], typer.Option("--format", help="parquet, csv, md or tex; may be repeated.")] = [],
    from_mlflow: FromOption = None,
) -> None:
    """Write tables as Parquet, CSV, Markdown and LaTeX."""
    from study.commands import show

    held, workspace = show.recorded(spec, override, storage, from_mlflow)
    for paths in show.export(held, workspace, table, formats).values():
        for path in paths:
            typer.echo(path)


def _drive(spec: "Spec", workspace: "Workspace", options: "RunOptions") -> None:
    from study.commands.start import start

    try:
        done = start(spec, workspace, options)
    except KeyboardInterrupt:
        done = False
    if not done:
        typer.echo("Stopped. The same command continues; nothing is lost.", err=True)
        raise typer.Exit(130)
