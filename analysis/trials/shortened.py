"""Trainings shortened to a share of the epochs (phase ``short``), and a ledger in which they stand for the full ones."""

from collections.abc import Callable
from typing import cast

from search_spaces.spec import Spec
from study.config import TrialConfig
from study.results.ledger import Contents
from study.schema import ReplicateRecord

FULL = 1.0


def at_share(spec: Spec, contents: Contents, share: float) -> Contents:
    """The ledger as if its confirm phase had been the trainings shortened to ``share``; searches are the same."""
    shares, full = short_shares(spec, contents), _full_epochs(spec, contents)
    replicates: dict[str, ReplicateRecord] = {}
    for key, record in contents.replicates.items():
        if record["phase"] == "search":
            replicates[key] = record
        elif shares.get(key) == share:
            # where epochs are a factor, the cell is named by those of the full training
            config = {**record["config"], "epochs": full(record)}
            replicates[key] = cast(ReplicateRecord, {**record, "phase": "confirm", "config": config})
    return Contents(replicates=replicates, measures=contents.measures)


def short_shares(spec: Spec, contents: Contents) -> dict[str, float]:
    """Trial key of each shortened training -> its share of the epochs, one of those that the study asks for."""
    full = _full_epochs(spec, contents)
    found = {}
    for key, record in contents.replicates.items():
        if record["phase"] != "short":
            continue
        for share in spec.budget.shortened:
            # as the plan rounds
            if max(1, round(share * full(record))) == record["config"]["epochs"]:
                found[key] = share
    return found


def _full_epochs(spec: Spec, contents: Contents) -> Callable[[ReplicateRecord], int]:
    """Epochs of a full training in a record's cell."""
    confirmed = [record for record in contents.replicates.values() if record["phase"] == "confirm"]
    known = {record["cell"]: int(record["config"]["epochs"]) for record in confirmed}
    fixed = int(spec.fixed.get("epochs", TrialConfig.epochs))
    return lambda record: known.get(record["cell"], fixed)
