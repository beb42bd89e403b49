"""What each block of a joint search found that nothing beats, and how it did on the test split.

Source: https://doi.org/10.1109/4235.996017
"""

from typing import Any

from analysis.inputs import Inputs
from analysis.words.columns import number, shared, text
from analysis.words.rows import Rows
from study.planning.pareto import chosen, objectives
from study.registry import TABLES
from study.schema import FRACTION, ReplicateRecord


@TABLES.register(
    "pareto",
    formula="one row a Pareto-optimal trial of a block: its objectives in the search, its test once confirmed",
    source="https://doi.org/10.1109/4235.996017",
    title="Best networks of the joint search",
    place=1.9,
    columns=(
        *shared("study block cell number"),
        text("settings", "Settings", meaning="values of the tuned hyperparameters"),
        text(
            "objectives",
            "Objectives in search",
            meaning="what the search trial reached in each objective, on validation images",
        ),
        text("state", "Confirmed", meaning="how its confirmed training ended; empty: not yet"),
        number("test_accuracy", FRACTION, "Test accuracy", "percent", meaning="test accuracy of the confirmed network"),
        number("test_loss", "nat", meaning="test loss of the confirmed network"),
        *shared("params flops"),
    ),
    main="block cell number settings objectives state test_accuracy params flops",
    row="one Pareto-optimal trial of a block's joint search; test of its confirmed replicate, if it is run",
)
def pareto_rows(inputs: Inputs) -> Rows:
    """One row per trial that a block confirms, in order of block and number; empty where the search is not joint.

    ``objectives`` are those of the search trial, on validation images; ``state`` is the confirmed replicate's, empty
    while it has not been run. No rows of different blocks are averaged: each block may find other networks.
    """
    spec = inputs.spec
    if spec.joint is None:
        return []
    confirmed: dict[tuple[Any, ...], ReplicateRecord] = {}
    blocks: dict[int, list[ReplicateRecord]] = {block: [] for block in range(spec.blocks)}
    for record in inputs.contents.replicates.values():
        if record["phase"] == "confirm":
            confirmed[record["cell"], record["block"], record["number"]] = record
        elif record["phase"] == "search" and record["block"] in blocks and record["number"] < spec.budget.search_trials:
            blocks[record["block"]].append(record)
    return [
        _row(inputs, record, confirmed.get((record["cell"], block, record["number"])))
        for block, records in blocks.items()
        for record in chosen(spec, sorted(records, key=lambda record: record["number"]))
    ]


def _row(inputs: Inputs, record: ReplicateRecord, confirmed: ReplicateRecord | None) -> dict[str, Any]:
    spec = inputs.spec
    assert spec.joint is not None
    reached = zip(spec.joint.objectives, objectives(spec, record) or (), strict=True)
    metrics = confirmed["metrics"] if confirmed else {}
    return {
        "block": record["block"],
        "cell": record["cell"],
        "number": record["number"],
        "settings": ", ".join(f"{name}={_text(record['config'][name])}" for name in spec.nuisance),
        "objectives": ", ".join(f"{objective.name}={value:.6g}" for objective, value in reached),
        "state": confirmed["state"] if confirmed else "",
        "test_accuracy": metrics.get("test/accuracy"),
        "test_loss": metrics.get("test/loss"),
        "params": record["params"],
        "flops": record["flops"],
    }


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
