"""Commands that plan, run and check a study."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from study.cli.options import (
    RESULTS,
    AddressOption,
    CpusOption,
    MaxHoursOption,
    MaxMoneyOption,
    PriceOption,
    SetOption,
    SpecArgument,
    StorageOption,
    TrackingOption,
    checked_spec,
    workspace_of,
)

commands = typer.Typer()


@commands.command()
def plan(spec: SpecArgument, override: SetOption = [], price: PriceOption = None) -> None:  # noqa: B006
    """Show cells, trials, cost and power of a study; runs nothing."""
    from study.planning.plan import make_plan
    from study.printing.console import open_console
    from study.printing.describe import print_plan

    print_plan(make_plan(checked_spec(spec, override), needs_data=False), open_console(), price)


@commands.command()
def cost(
    spec: SpecArgument,
    cell: Annotated[str, typer.Option(help="The cell to show; the first if left out.")] = "",
    override: SetOption = [],  # noqa: B006
) -> None:
    """Show what each layer of a cell costs, and the total of every other cell; runs nothing."""
    from study.planning.plan import make_plan
    from study.printing.console import open_console
    from study.printing.cost import print_cost

    print_cost(make_plan(checked_spec(spec, override), needs_data=False), cell, open_console())


@commands.command()
def run(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    num_cpus: CpusOption = None,
    tracking_uri: TrackingOption = None,
    max_hours: MaxHoursOption = None,
    max_money: MaxMoneyOption = None,
    price: PriceOption = None,
) -> None:
    """Run a study, or continue it: what is finished is never run again."""
    limits = {"max_hours": max_hours, "max_money": max_money, "price": price}
    _drive(spec, storage, override, address, num_cpus, tracking_uri, limits)


@commands.command()
def status(spec: SpecArgument, storage: StorageOption = RESULTS, override: SetOption = []) -> None:  # noqa: B006
    """Show what is done, waiting, diverged, collapsed, failed."""
    from study.planning.plan import make_plan
    from study.printing.console import open_console
    from study.printing.describe import print_status
    from study.results.ledger import read_ledger

    checked = checked_spec(spec, override)
    workspace = workspace_of(checked, storage)
    print_status(make_plan(checked), read_ledger(workspace.ledger), workspace, open_console())


@commands.command()
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
    _drive(spec, storage, override, address, num_cpus, tracking_uri, {}, retry_failed=True)


@commands.command()
def audit(
    spec: SpecArgument,
    storage: StorageOption = RESULTS,
    override: SetOption = [],  # noqa: B006
    tracking_uri: TrackingOption = None,
) -> None:
    """Check that ledger, Optuna, tables and MLflow agree; exit 1 and a list where they do not."""
    from study.commands import show

    checked = checked_spec(spec, override)
    faults, told = show.check(checked, workspace_of(checked, storage), tracking=tracking_uri)
    for line in [*faults, told]:
        typer.echo(line)
    if faults:
        raise typer.Exit(1)


def _drive(
    spec: str,
    storage: Path,
    override: list[str],
    address: str | None,
    num_cpus: int | None,
    tracking: str | None,
    limits: dict[str, float | None],
    *,
    retry_failed: bool = False,
) -> None:
    from study.commands.start import started
    from study.resources.allowance import Allowance

    allowance = Allowance.of(**{"max_hours": None, "max_money": None, "price": None, **limits})
    checked = checked_spec(spec, override)
    workspace = workspace_of(checked, storage)
    # what stops a driver from outside (a spot notice, a batch system's time limit) is to it what Ctrl-C is
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with started(workspace, address, num_cpus) as (driver, connection):
            # again, for Ray has a handler of its own
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            done = driver.run(
                checked,
                workspace,
                address=address,
                num_cpus=num_cpus,
                tracking=tracking,
                allowance=allowance,
                retry_failed=retry_failed,
                connection=connection,
            )
    except KeyboardInterrupt:
        done = False
    if not done:
        typer.echo("Stopped. The same command continues; nothing is lost.", err=True)
        raise typer.Exit(130)
