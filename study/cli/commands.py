"""The commands on a study: plan, run, check, show."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.options import (
    RESULTS,
    AcceptOption,
    AddressOption,
    CpusOption,
    FromOption,
    InProcessOption,
    JsonOption,
    PriceOption,
    QuietOption,
    SetOption,
    StorageOption,
    StudyArgument,
    TrackingOption,
    VerboseOption,
    as_folder,
)
from study.printing.console import lasting_output, open_console

if TYPE_CHECKING:
    from search_spaces import Spec
    from study.commands.start import RunOptions
    from study.results.workspace import Workspace

app = typer.Typer(
    name="fmm-study",
    help="Is feature map multiplication what makes attention help CNNs? Plan, run and analyse ablation studies.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        typer.echo(f"fmm-study {importlib.metadata.version('fmm-study')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def plan(
    spec: StudyArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    price: PriceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show cells, trials, cost and power of a study; runs nothing."""
    from study.commands.claimed import checked_plan
    from study.printing.describe import described, print_plan
    from study.results.workspace import named

    checked = checked_plan(named(spec, override, storage)[0])
    if as_json:
        typer.echo(json.dumps(described(checked, price), indent=2))
    else:
        print_plan(checked, open_console(), price)


@app.command()
def cost(
    spec: StudyArgument,
    storage: StorageOption = RESULTS,
    cell: Annotated[str, typer.Option(help="The cell to show; the first if left out.")] = "",
    override: SetOption = [],
) -> None:
    """Show what each layer of a cell costs, and the total of every other cell; runs nothing."""
    from study.planning.plan import make_plan
    from study.printing.describe import print_cost
    from study.results.workspace import named

    print_cost(make_plan(named(spec, override, storage)[0], needs_data=False), cell, open_console())


@app.command()
def run(
    spec: StudyArgument,
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
    accept_changes: AcceptOption = False,
    in_process: InProcessOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a study, or continue it: what is finished is never run again."""
    # before what takes a second to import: most specifications that are refused are refused here
    study = opened(spec, override, storage)
    from study.commands.start import RunOptions, allowed_hours

    hours = allowed_hours(max_hours, max_money, price)
    options = RunOptions(
        address=address,
        num_cpus=num_cpus,
        tracking=tracking_uri,
        max_hours=hours,
        price=price,
        accept_changes=accept_changes,
        in_process=in_process,
        quiet=quiet,
        verbose=verbose,
    )
    _drive(*study, options)


@app.command()
def status(
    spec: StudyArgument, storage: StorageOption = RESULTS, override: SetOption = [], as_json: JsonOption = False
) -> None:
    """Show what is done, waiting, diverged, collapsed, failed."""
    from study.commands.recorded import recorded_plan
    from study.commands.status import has_ended
    from study.printing.status import print_status, status_of
    from study.results.ledger import read_ledger

    checked, workspace = opened(spec, override, storage, reading=True)
    contents = read_ledger(workspace.ledger)
    plan = recorded_plan(checked, workspace, contents)
    ended = has_ended(plan, contents, workspace)
    if as_json:
        typer.echo(json.dumps(status_of(plan, contents, workspace, ended=ended), indent=2))
    else:
        print_status(plan, contents, workspace, open_console(), ended=ended)


@app.command()
def retry(
    spec: StudyArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Run failed replicates again.")] = False,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    address: AddressOption = None,
    num_cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
    accept_changes: AcceptOption = False,
    in_process: InProcessOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run failed replicates once more, then whatever follows from them."""
    from study.commands.start import RunOptions
    from study.errors import UserError

    if not failed:
        raise UserError("retry runs failed replicates again: fmm-study retry SPEC --failed")
    options = RunOptions(
        address=address,
        num_cpus=num_cpus,
        tracking=tracking_uri,
        retry_failed=True,
        accept_changes=accept_changes,
        in_process=in_process,
        quiet=quiet,
        verbose=verbose,
    )
    _drive(*opened(spec, override, storage), options)


@app.command()
def audit(
    spec: StudyArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that ledger, Optuna, tables and MLflow agree; exit 1 and a list where they do not."""
    from study.commands import show

    faults, counted = show.check(*opened(spec, override, storage, reading=True), tracking=tracking_uri)
    if as_json:
        typer.echo(json.dumps({"faults": faults, "looked_at": counted}, indent=2))
    else:
        for line in [*faults, counted]:
            typer.echo(line)
    if faults:
        raise typer.Exit(1)


@app.command()
def report(
    spec: StudyArgument, storage: StorageOption = RESULTS, override: SetOption = [], from_mlflow: FromOption = None
) -> None:
    """Write tables, figures and one self-contained report.html."""
    from study.commands import show

    held, workspace = show.recorded(spec, override, storage, from_mlflow)
    typer.echo(show.report(held, workspace))


@app.command()
def compare(
    studies: Annotated[
        list[str], typer.Argument(metavar="A B ...", help="Studies: a folder, a name, or URI#NAME in an MLflow store.")
    ],
    storage: StorageOption = RESULTS,
    form: Annotated[str, typer.Option("--format", help="text, md or json.")] = "text",
) -> None:
    """Show what changed from one study to another; of more than two their claims side by side, and what they say together."""
    from analysis.comparison import Side, compare_studies
    from study.commands.show import anywhere
    from study.errors import UserError
    from study.printing.comparison import check_format, print_by_study, print_comparison

    check_format(form)
    if len(studies) < 2:
        raise UserError(f"compare needs two studies or more, got {len(studies)}: fmm-study compare A B")
    found = [anywhere(place, storage) for place in studies]
    if len(found) > 2:
        names = [held.spec.name for held in found]
        shown = [held.spec.name if names.count(held.spec.name) == 1 else held.where for held in found]
        print_by_study({name: held.inputs for name, held in zip(shown, found, strict=True)}, form, open_console())
        return
    sides = [Side(inputs=held.inputs, session=held.session, where=held.where, earlier=held.earlier) for held in found]
    print_comparison(compare_studies(*sides), form, open_console())


@app.command("ui")
def serve(
    spec: StudyArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    tracking_uri: TrackingOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 0,
    browse: Annotated[bool, typer.Option(help="Open the comparison in a browser.")] = True,
) -> None:
    """Open MLflow's UI on this study, at a ready comparison."""
    from study.commands.ui import ui

    checked, workspace = opened(spec, override, storage, reading=True)
    ui(checked, workspace, tracking=tracking_uri, host=host, port=port, browse=browse)


@app.command()
def export(
    spec: StudyArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],
    table: Annotated[list[str], typer.Option(help="A table to write (all if left out); may be repeated.")] = [],
    formats: Annotated[list[str], typer.Option("--format", help="parquet, csv, md or tex; may be repeated.")] = [],
    from_mlflow: FromOption = None,
    optuna: Annotated[
        str | None,
        typer.Option(
            metavar="sqlite:///FILE", help="Write the searches into a database of Optuna's instead of tables."
        ),
    ] = None,
) -> None:
    """Write tables as Parquet, CSV, Markdown and LaTeX, or with --optuna the searches for Optuna and its dashboard."""
    from analysis.tables.build import build_tables
    from study.commands.show import export_to_optuna, recorded

    held, workspace = recorded(spec, override, storage, from_mlflow)
    if optuna is not None:
        export_to_optuna(held, optuna)
        if not table and not formats:
            return
    for paths in build_tables(held.inputs, workspace.tables, table, formats).values():
        for path in paths:
            typer.echo(path)


@app.command()
def publish(
    spec: StudyArgument,
    into: Annotated[
        Path, typer.Option(help="Folder of published studies; this one gets its own there.", callback=as_folder)
    ] = Path("published"),
    storage: StorageOption = RESULTS,
) -> None:
    """Copy a study, finished or not, into a repository: ledger, tables, figures, report, README; no weights, no images."""
    from study.commands.publish import publish

    _, workspace = opened(spec, [], storage, reading=True)
    typer.echo(publish(workspace, into, spec))


def opened(name: str, override: list[str], storage: Path, *, reading: bool = False) -> "tuple[Spec, Workspace]":
    """``study.results.workspace.opened``, imported when a command needs it."""
    from study.results import workspace

    return workspace.opened(name, override, storage, reading=reading)


def _drive(spec: "Spec", workspace: "Workspace", options: "RunOptions") -> None:
    from study.commands.start import start

    with lasting_output():
        try:
            done = start(spec, workspace, options)
        except KeyboardInterrupt:
            done = False
        if not done:
            # not by typer, which looks behind the stream for its descriptor
            sys.stderr.write("Stopped. The same command continues; nothing is lost.\n")
            raise typer.Exit(130)
