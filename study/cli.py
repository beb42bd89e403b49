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
AddressOption = Annotated[str | None, typer.Option(help="A running Ray cluster; this machine alone if left out.")]
CpusOption = Annotated[int | None, typer.Option(help="Cores to use on this machine (all if left out).", min=1)]
TrackingOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="An MLflow store or server; SQLite under the results folder if left out."),
]
PriceOption = Annotated[float | None, typer.Option(help="Of a GPU hour (a core's without GPUs), to see money.", min=0)]
RESULTS = Path("results")


@app.command()
def plan(spec: SpecArgument, override: SetOption = [], price: PriceOption = None) -> None:  # noqa: B006
    """Show cells, trials, cost and power of a study; runs nothing."""
    from study.describe import open_console, print_plan
    from study.plan import make_plan

    print_plan(make_plan(_spec(spec, override), needs_data=False), open_console(), price)


@app.command()
def cost(
    spec: SpecArgument,
    cell: Annotated[str, typer.Option(help="The cell to show; the first if left out.")] = "",
    override: SetOption = [],  # noqa: B006
) -> None:
    """Show what each layer of a cell costs, and the total of every other cell; runs nothing."""
    from study.describe import open_console
    from study.describe_cost import print_cost
    from study.plan import make_plan

    print_cost(make_plan(_spec(spec, override), needs_data=False), cell, open_console())


@app.command()
def run(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    num_cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Run a study, or continue it: what is finished is never run again."""
    _drive(spec, storage, override, address, num_cpus, tracking_uri)


@app.command()
def status(spec: SpecArgument, storage: StorageOption = RESULTS, override: SetOption = []) -> None:  # noqa: B006
    """Show what is done, waiting, diverged, collapsed, failed."""
    from study.describe import open_console, print_status
    from study.ledger import read_ledger
    from study.plan import make_plan

    checked = _spec(spec, override)
    workspace = _workspace(checked, storage)
    print_status(make_plan(checked), read_ledger(workspace.ledger), workspace, open_console())


@app.command()
def retry(
    spec: SpecArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Run failed replicates again.")] = False,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    num_cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Run failed replicates once more, then whatever follows from them."""
    from study.errors import UserError

    if not failed:
        raise UserError("retry runs failed replicates again: fmm-study retry SPEC --failed")
    _drive(spec, storage, override, address, num_cpus, tracking_uri, retry_failed=True)


@app.command()
def audit(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    tracking_uri: TrackingOption = None,
) -> None:
    """Check that ledger, Optuna, tables and MLflow agree; exit 1 and a list where they do not."""
    from study import driver

    checked = _spec(spec, override)
    faults, told = driver.check(checked, _workspace(checked, storage), tracking=tracking_uri)
    for line in [*faults, told]:
        typer.echo(line)
    if faults:
        raise typer.Exit(1)


@app.command()
def measure(
    checkpoint: Annotated[
        Path, typer.Argument(help="A replicate's final.pt or best.pt, or with --model a state dict.")
    ],
    statistic: Annotated[list[str], typer.Option(help="One statistic; may be repeated. All if left out.")] = [],  # noqa: B006
    setting: Annotated[
        list[str], typer.Option("--set", metavar="STATISTIC.KEY=VALUE", help="A setting, e.g. path.num_pairs=500.")
    ] = [],  # noqa: B006
    model: Annotated[str, typer.Option(metavar="MODULE:FUNCTION", help="What makes a network of one's own.")] = "",
    dataset: Annotated[str, typer.Option(help="What that network is measured on.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Take statistics of one trained network, without a study: a kept replicate, or a network of one's own."""
    from study.describe import open_console, print_measured
    from study.measuring import as_plain, load_own, measure_checkpoint, measure_network, parse_statistics

    chosen = parse_statistics(statistic, setting)
    if model:
        found = measure_network(load_own(model, checkpoint, device=device), dataset, chosen)
    else:
        found = measure_checkpoint(checkpoint, chosen, device=device)
    if as_json:
        import json

        typer.echo(json.dumps(as_plain(found), indent=2))
    else:
        print_measured(found, open_console())


@app.command()
def levels(
    kind: Annotated[
        str | None, typer.Argument(help="One kind alone: merge, attention, dataset, statistic, ...")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
    plugin: Annotated[list[str], typer.Option(help="A module of one's own to import; may be repeated.")] = [],  # noqa: B006
) -> None:
    """List what a specification may name: kind, name, formula, extra parameters, source."""
    import json

    from study.describe import open_console, print_levels
    from study.levels import levels

    rows = list(levels(kind, plugin))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_levels(rows, open_console())


@app.command()
def behaviour(
    merge: Annotated[list[str], typer.Option(help="One merge operator; may be repeated. All if left out.")] = [],  # noqa: B006
    depth: Annotated[list[int], typer.Option(help="6n + 2; may be repeated. 8, 20, 56 and 110 if left out.")] = [],  # noqa: B006
    width: Annotated[int, typer.Option(help="Of the first stage.", min=1)] = 16,
    blocks: Annotated[bool, typer.Option("--blocks", help="A line a block instead of a line a network.")] = False,
) -> None:
    """Show merge operators at initialisation: scales and gradients by depth, half precision, which will hardly train."""
    from study.models.initial_behaviour import format_blocks, format_overview, initial_behaviours
    from study.registry import MERGES

    merges = merge or [entry.name for entry in MERGES if "matches" not in entry.traits]
    found = initial_behaviours(merges=merges, depths=depth or [8, 20, 56, 110], width=width)
    typer.echo("\n\n".join(map(format_blocks, found)) if blocks else format_overview(found))


@app.command()
def doctor(
    storage: StorageOption = RESULTS,
    address: AddressOption = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Say what works here and what to do about the rest: versions, devices, Ray, datasets, storage, tracking."""
    from study.doctor import examine

    well = True
    for finding in examine(storage, address, tracking_uri):
        absent = not finding.well and finding.name.startswith("dataset ")  # no fault: no study needs them all
        typer.echo(f"{'ok  ' if finding.well else 'none' if absent else 'FAIL'}  {finding.name}: {finding.found}")
        if not finding.well:
            typer.echo(f"      -> {finding.advice}")
            well = well and absent
    if not well:
        raise typer.Exit(1)


@app.command()
def report(spec: SpecArgument, storage: StorageOption = RESULTS, override: SetOption = []) -> None:  # noqa: B006
    """Write tables, figures and one self-contained report.html."""
    from study import driver

    checked = _spec(spec, override)
    typer.echo(driver.report(checked, _workspace(checked, storage)))


@app.command()
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
    from study import driver

    checked = _spec(spec, override)
    driver.ui(checked, _workspace(checked, storage), tracking=tracking_uri, host=host, port=port, browse=browse)


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


def _drive(
    spec: str,
    storage: Path,
    override: list[str],
    address: str | None,
    num_cpus: int | None,
    tracking: str | None,
    *,
    retry_failed: bool = False,
) -> None:
    from study import driver

    checked = _spec(spec, override)
    workspace = _workspace(checked, storage)
    if not driver.run(
        checked, workspace, address=address, num_cpus=num_cpus, tracking=tracking, retry_failed=retry_failed
    ):
        typer.echo("Stopped. The same command continues; nothing is lost.", err=True)
        raise typer.Exit(130)


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
