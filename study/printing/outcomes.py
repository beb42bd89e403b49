"""Outcomes: what networks are read on, hence what a claim may name. Metrics of a training, and what statistics estimate."""

import contextlib
from collections.abc import Iterable, Mapping

from rich.console import Console

from analysis.trials.columns import METRICS, OF_CURVES
from search_spaces import Spec
from study.errors import UserError
from study.planning.plan import load_levels
from study.printing.console import print_table
from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import parse_settings, quantities


def measured_quantities(spec: Spec) -> dict[str, list[Quantity]]:
    """What each statistic of a study estimates, at its settings there.

    Without those of plug-ins that may not be imported here. Raises ``UserError`` for settings that a statistic does not have.
    """
    asked = list(spec.measure.all())
    if any(statistic not in STATISTICS for _, statistic, _ in asked):
        with contextlib.suppress(UserError):
            load_levels(spec)
    found: dict[str, list[Quantity]] = {}
    for _, statistic, given in asked:
        if statistic in STATISTICS:
            found.setdefault(statistic, []).extend(quantities(statistic, parse_settings(statistic, given)))
    return found


def outcomes(spec: Spec | None = None) -> dict[str, Quantity]:
    """Name -> what a claim of this study may name; without one, of a study with every statistic at its defaults.

    Metrics come first. Raises as ``measured_quantities``.
    """
    asked: Mapping[str, Mapping[str, object]] = (
        spec.measure.statistics if spec else {name: {} for name in STATISTICS.names()}
    )
    measured = (quantity for name, given in asked.items() for quantity in quantities(name, parse_settings(name, given)))
    return {quantity.name: quantity for quantity in (*METRICS, *OF_CURVES, *measured) if "{" not in quantity.name}


def plain(listed: Iterable[Quantity]) -> list[dict[str, str]]:
    """Outcomes as JSON values."""
    return [{"kind": "outcome", **vars(quantity)} for quantity in listed]


def print_outcomes(listed: Iterable[Quantity], console: Console) -> None:
    """Print a line an outcome: name, unit, which way is better, statistic, meaning."""
    rows = [(q.name, q.unit, q.better, q.statistic or "(training)", q.meaning) for q in listed]
    print_table(console, ("name", "unit", "better", "statistic", "meaning"), rows, title="outcome", num_left=5)
