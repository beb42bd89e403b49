"""Which records of a ledger count, and in what order: the last one in each slot, in the order of the spec."""

from collections.abc import Mapping
from typing import Any

from search_spaces import Levels, Spec
from study.results.ledger import Contents
from study.schema import MeasureRecord, ReplicateRecord

_PHASES = {"search": 0, "confirm": 1, "short": 2}


def current_records(spec: Spec, contents: Contents) -> list[ReplicateRecord]:
    """The replicates that count, by cell (order of the spec, unplanned ones last), phase, block, replicate, number.

    A slot is a trial number in a cell's search, and a replicate (shortened: and its epochs) of a cell; a later record
    supersedes an earlier one in its slot, also where a longer search brought another winner.
    """
    slots: dict[tuple[Any, ...], ReplicateRecord] = {}
    for record in contents.replicates.values():
        slots[slot(record)] = record
    configs, planned = {record["cell"]: record["config"] for record in slots.values()}, list(spec.cells())
    order = {
        name: next((i for i, levels in enumerate(planned) if agrees(config, levels)), len(planned))
        for name, config in configs.items()
    }

    def position(record: ReplicateRecord) -> tuple[Any, ...]:
        where = order[record["cell"]], record["cell"], _PHASES[record["phase"]]
        return (*where, record["block"], record["replicate"], record["number"], record["epochs"], record["trial_key"])

    return sorted(slots.values(), key=position)


def slot(record: ReplicateRecord) -> tuple[Any, ...]:
    """What a later record supersedes an earlier one in."""
    last = {"search": record["number"], "short": record["config"].get("epochs", 0), "confirm": 0}[record["phase"]]
    return record["cell"], record["phase"], record["block"], record["replicate"], last


def current_measures(contents: Contents) -> dict[str, dict[str, MeasureRecord]]:
    """The last record written of each statistic on each replicate: trial key -> statistic -> record."""
    measures: dict[str, dict[str, MeasureRecord]] = {}
    for record in contents.measures.values():
        measures.setdefault(record["trial_key"], {})[record["statistic"]] = record
    return measures


def agrees(values: Mapping[str, Any], levels: Levels) -> bool:
    """Whether ``values`` holds every one of ``levels`` (compared by value, or as text where a column holds text)."""
    return all(
        name in values and (values[name] == level or str(values[name]) == str(level)) for name, level in levels.items()
    )
