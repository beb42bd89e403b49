"""The cells table: what each cell was given, how its networks ended, what they reached, what they cost."""

from collections import Counter

from analysis.inputs import Inputs
from analysis.stats.spread import mean, sd
from analysis.trials.arms import planned_cells
from analysis.trials.table import rows_of
from analysis.words.columns import DASH, FRACTION, count, floats, integer, number, shared, text
from analysis.words.rows import Row, Rows, grouped, where
from study.registry import TABLES
from study.schema import STATES

_READ = (
    "cell", "phase", "state", "test/accuracy", "params", "flops", "boundary", "defaulted", "epochs",
    "train_seconds", "measure_seconds",
)  # fmt: skip
_PHASES = ("search", "confirm", "short")


@TABLES.register(
    "cells",
    formula="one row a planned cell: networks by how they ended, accuracy of the completed ones, cost",
    source="",
    title="Cells",
    place=4.1,
    always=True,
    columns=(
        *shared("study cell dataset arm depth params flops"),
        count("n_search", "Search trials"),
        count("n_confirm", "Confirmed"),
        *(count(f"n_{state}", state.capitalize()) for state in STATES),
        number(
            "test_accuracy_mean", FRACTION, "Test accuracy ± sd", "percent", spread="test_accuracy_sd", missing=DASH
        ),
        number("test_accuracy_sd", FRACTION),
        text("at_boundary", "Winners at a boundary"),
        count("n_defaulted"),
        integer("epochs_search", "epochs", "Epochs, search"),
        integer("epochs_confirm", "epochs", "Epochs, confirm"),
        integer("epochs_short", "epochs", "Epochs, shortened"),
        *floats("search_seconds confirm_seconds short_seconds measure_seconds", "s"),
    ),
    main="cell params n_search n_confirm n_completed n_collapsed n_diverged n_failed test_accuracy_mean at_boundary "
    "epochs_search epochs_confirm epochs_short",
    row="one cell; states and accuracy are those of the confirm phase, accuracy of completed networks only",
)
def cells_rows(inputs: Inputs) -> Rows:
    """One row per planned cell, in the order of the spec; a cell without results has counts of zero and no mean.

    Means and spreads are of completed networks, whose number stands beside them. ``at_boundary`` counts the confirmed
    winners whose value lies in the outer tenth of a log range.
    """
    groups = grouped(rows_of(inputs.trials, _READ), "cell")
    heads = planned_cells(inputs.spec, inputs.trials)
    return [{**head, **_row(groups.get(head["cell"], []))} for head in heads]


def boundary_counts(rows: Rows) -> Counter[str]:
    """Hyperparameter -> in how many of these rows its value lies at the boundary of its range."""
    return Counter(name for row in rows for name in row["boundary"].split(",") if name)


def _row(rows: Rows) -> Row:
    by_phase = {phase: where(rows, phase=phase) for phase in _PHASES}
    confirm = by_phase["confirm"]
    states = Counter(row["state"] for row in confirm)
    reached = [row["test/accuracy"] for row in where(confirm, state="completed") if row["test/accuracy"] is not None]
    return {
        **{name: rows[0][name] if rows else None for name in ("params", "flops")},
        "n_search": len(by_phase["search"]),
        "n_confirm": len(confirm),
        **{f"n_{state}": states[state] for state in STATES},
        "test_accuracy_mean": mean(reached),
        "test_accuracy_sd": sd(reached),
        "at_boundary": ", ".join(f"{name} {num}" for name, num in sorted(boundary_counts(confirm).items())),
        "n_defaulted": sum(row["defaulted"] for row in confirm),
        **{f"epochs_{phase}": sum(row["epochs"] for row in held) for phase, held in by_phase.items()},
        **{f"{phase}_seconds": float(sum(row["train_seconds"] for row in held)) for phase, held in by_phase.items()},
        "measure_seconds": float(sum(row["measure_seconds"] for row in rows)),
    }
