"""What changed between two studies: in what was asked, in what it was run with, in how networks ended and what they cost.

Each change is a row of three texts, what and its value in either study; an empty one where a study has no such thing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from analysis.trials.table import rows_of
from search_spaces.spec import Spec
from study.schema import STATES

Change = tuple[str, str, str]

# listed one by one, so that a level or claim that one study adds is told as such
_NAMED = ("claims", "level_claims", "nuisance")


def specification_changes(a: Spec, b: Spec) -> list[Change]:
    """Key by key, levels of factors one by one; whether ``name`` and ``title`` differ counts as nothing."""
    changes = differing(_flat(a), _flat(b))
    levels, others = _levels(a), _levels(b)
    for factor in dict.fromkeys([*levels, *others]):
        mine, yours = levels.get(factor, []), others.get(factor, [])
        gone, new = ([x for x in one if x not in two] for one, two in ((mine, yours), (yours, mine)))
        if gone or new:
            changes.append((f"factors.{factor}", ", ".join(gone), ", ".join(new)))
    cells, more = (Counter(map(repr, map(sorted, (cell.items() for cell in spec.cells())))) for spec in (a, b))
    if cells != more:
        changes.append(
            ("cells", f"{len(cells)}, {len(cells - more)} of them here alone", f"{len(more)}, {len(more - cells)}")
        )
    return changes


def provenance_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """Code, versions, machine and data of two sessions (``study/results/provenance.py``), by dotted key."""
    return differing(dict(_leaves(a)), dict(_leaves(b)))


def outcome_changes(a: pa.Table, b: pa.Table) -> list[Change]:
    """Numbers of networks by phase and state, epochs and seconds of worker time, from two trials tables."""
    ours, theirs = _totals(a), _totals(b)
    return [(key, f"{ours[key]:,.6g}", f"{theirs[key]:,.6g}") for key in ours if ours[key] != theirs[key]]


def side_by_side(a: Mapping[str, str], b: Mapping[str, str]) -> list[Change]:
    """Each key of either mapping with both values."""
    return [(key, a.get(key, ""), b.get(key, "")) for key in dict.fromkeys([*a, *b])]


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[Change]:
    """The keys whose values differ, with both values."""
    return [change for change in side_by_side(a, b) if change[1] != change[2]]


def _totals(trials: pa.Table) -> dict[str, float]:
    rows = rows_of(trials, ("phase", "state", "epochs", "train_seconds", "measure_seconds"))
    totals: dict[str, float] = {}
    for phase in ("search", "short", "confirm"):
        states = Counter(row["state"] for row in rows if row["phase"] == phase)
        totals |= {f"{phase}, {state}": states[state] for state in STATES}
    totals["epochs"] = sum(row["epochs"] for row in rows)
    for name in ("train_seconds", "measure_seconds"):
        totals[name.replace("_", " ")] = sum(row[name] for row in rows)
    return totals


def _flat(spec: Spec) -> dict[str, str]:
    """Claims and hyperparameters whole; other values by dotted key."""
    flat: dict[str, str] = {}
    for key, value in spec.model_dump(mode="json", exclude={"name", "title", "factors"}).items():
        if key in _NAMED:
            flat |= {f"{key}.{name}": _text(item) for name, item in value.items()}
        else:
            flat |= dict(_leaves({key: value}))
    return flat


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _levels(spec: Spec) -> dict[str, list[str]]:
    levels: dict[str, dict[str, None]] = {}
    for grid in spec.factors:
        for factor, known in grid.items():
            levels.setdefault(factor, {}).update(dict.fromkeys(map(str, known)))
    return {factor: list(known) for factor, known in levels.items()}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(_text, value))
    return "" if value is None else str(value)
