"""What ``measure`` prints. Imports no Optuna and no analysis: the command runs without them."""

from collections.abc import Mapping

from rich.console import Console

from study.measuring.network import Measured
from study.printing.console import print_table, say, say_heading

_HEADINGS = ("estimate", "value", "standard error", "samples", "")


def print_measured(found: Mapping[str, Measured], console: Console) -> None:
    """Print the estimates of one network: value, standard error, number of samples, and whether they converged."""
    for statistic, measured in found.items():
        rows = [
            (name, f"{e.value:.4g}", f"{e.stderr:.2g}", str(e.num_samples), "" if e.converged else "not converged")
            for name, e in measured.items()
        ]
        say_heading(console, statistic)
        if measured.error or not rows:
            say(console, measured.error or "nothing to measure on this network")
        if rows:
            print_table(console, _HEADINGS, rows)
