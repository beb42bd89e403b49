"""Outcomes: what networks are read on, hence what a claim may name. Metrics of a training, and what statistics estimate."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from analysis.trials.columns import METRICS, OF_CURVES
from search_spaces import Spec
from study.errors import UserError, nearest
from study.planning.plan import load_levels
from study.printing.console import print_table
from study.registry import STATISTICS, home_of
from study.schema import Quantity
from study.smoothness import parse_settings, quantities

_Settings = Mapping[str, Any]
_Sessions = Sequence[Mapping[str, Any]]


def measured_quantities(spec: Spec, sessions: _Sessions = ()) -> dict[str, list[Quantity]]:
    """What each statistic of a study estimates, at its settings there.

    Of a plug-in's, where its module was not imported, what the study noted in its ``sessions``. Raises ``UserError`` for
    settings that a statistic does not have.
    """
    found: dict[str, list[Quantity]] = {}
    for _, statistic, given in spec.measure.all():
        found.setdefault(statistic, []).extend(_quantities(statistic, given, sessions) or [])
    return found


def of_plugins(spec: Spec) -> dict[str, list[dict[str, str]]]:
    """What a study notes: the quantities of its statistics that are not of this package, as JSON values."""
    return {
        statistic: [vars(quantity) for quantity in found]
        for statistic, found in measured_quantities(spec).items()
        if not home_of(STATISTICS[statistic].build).startswith("study.")
    }


def outcomes(spec: Spec | None = None, sessions: _Sessions = ()) -> dict[str, Quantity]:
    """Name -> what a claim of this study may name; without one, of a study with every statistic at its defaults.

    Metrics come first. Raises as ``measured_quantities``, and for a statistic of which nothing is known.
    """
    asked: Mapping[str, _Settings] = spec.measure.statistics if spec else {name: {} for name in STATISTICS.names()}
    found = [*METRICS, *OF_CURVES]
    for statistic, given in asked.items():
        known = _quantities(statistic, given, sessions)
        if known is None:
            raise UserError(f"unknown statistic {statistic!r}{nearest(statistic, STATISTICS.names())}")
        found += known
    return {quantity.name: quantity for quantity in found if "{" not in quantity.name}


def recorded_outcomes(spec: Spec, sessions: _Sessions) -> dict[str, Quantity]:
    """``outcomes`` of a study that may have been run: its plug-ins are imported where it has not noted what they estimate.

    Raises ``UserError`` for those that its user has not allowed, too.
    """
    noted = {statistic for held in sessions for statistic in held.get("outcomes", {})}
    if any(name not in STATISTICS and name not in noted for name in spec.measure.statistics):
        load_levels(spec)
    return outcomes(spec, sessions)


def _quantities(statistic: str, given: _Settings, sessions: _Sessions) -> list[Quantity] | None:
    """``None`` where nothing is known of a statistic."""
    if statistic in STATISTICS:
        return quantities(statistic, parse_settings(statistic, given))
    noted = next((held["outcomes"] for held in reversed(sessions) if statistic in held.get("outcomes", {})), None)
    return noted and [Quantity(**each) for each in noted[statistic]]


def plain(listed: Iterable[Quantity]) -> list[dict[str, str]]:
    """Outcomes as JSON values."""
    return [{"kind": "outcome", **vars(quantity)} for quantity in listed]


def print_outcomes(listed: Iterable[Quantity], console: Console) -> None:
    """Print a line an outcome: name, unit, which way is better, statistic, meaning."""
    rows = [(q.name, q.unit, q.better, q.statistic or "(training)", q.meaning) for q in listed]
    print_table(console, ("name", "unit", "better", "statistic", "meaning"), rows, title="outcome", num_left=5)
