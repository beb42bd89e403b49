"""Which values of a ledger are still right, where a part of a network has got a higher revision since they were measured.

A part's revision (``study.registry.revised_parts``) goes up when what is measured on trained weights changes while the weights
stay valid. Statistics are then measured anew, under new keys. Two things cannot be: a replicate's own re-estimated metrics and
its measurements in mid-training. What is of an earlier revision stays in the ledger, and no table shows it.
"""

import dataclasses
from collections.abc import Mapping
from typing import cast

from study.registry import revised_parts
from study.results.ledger import Contents
from study.schema import MeasureRecord, ReplicateRecord

REESTIMATED = "_bn_reestimated"


def up_to_date(contents: Contents) -> Contents:
    """``contents`` without values of an earlier revision; the networks' parts must be registered."""
    revisions = {key: revised_parts(record["config"]) for key, record in contents.replicates.items()}
    if not any(revisions.values()):
        return contents
    replicates = {key: _replicate(record, revisions[key]) for key, record in contents.replicates.items()}
    measures = {
        key: record
        for key, record in contents.measures.items()
        if _is_current(record, revisions.get(record["trial_key"], {}))
    }
    return dataclasses.replace(contents, replicates=replicates, measures=measures)


def num_outdated(contents: Contents) -> int:
    """Replicates whose re-estimated metrics or measurements in mid-training are of an earlier revision."""
    return sum(
        (REESTIMATED in "".join(record["metrics"]) or bool(record.get("trajectory")))
        and not _is_current(record, revised_parts(record["config"]))
        for record in contents.replicates.values()
    )


def _is_current(record: ReplicateRecord | MeasureRecord, revisions: Mapping[str, int]) -> bool:
    return record.get("revisions", {}) == revisions


def _replicate(record: ReplicateRecord, revisions: Mapping[str, int]) -> ReplicateRecord:
    if _is_current(record, revisions):
        return record
    metrics = {name: value for name, value in record["metrics"].items() if not name.endswith(REESTIMATED)}
    return cast(ReplicateRecord, {**record, "metrics": metrics, "trajectory": []})
