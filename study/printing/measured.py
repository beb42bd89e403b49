"""https://rich.readthedocs.io/en/stable/tables.html: what ``measure`` prints. No optuna, no analysis: it runs without them."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from study.measuring.network import Measured
from study.printing.console import say


def print_measured(found: Mapping[str, Measured], console: Console) -> None:
    """Estimates of one network: value, standard error, number of samples, and a mark where not converged."""
    for statistic, measured in found.items():
        console.print(f"[bold]{escape(statistic)}[/bold]")
        if measured.error or not measured:
            say(console, measured.error or "nothing to measure on this network")
        if measured:
            right = (Column(heading, justify="right") for heading in ("value", "standard error", "samples"))
            table = Table("estimate", *right, "", box=None)
            for name, e in measured.items():
                mark = "" if e.converged else "not converged"
                table.add_row(name, f"{e.value:.4g}", f"{e.stderr:.2g}", str(e.num_samples), mark)
            console.print(table)
