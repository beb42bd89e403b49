"""Tables of planned cells: what each was given, how its networks ended, what it cost, and how accurate its arm is.

The best arm stands in bold where it is surely the best. Per dataset and depth, the arm with the highest mean is tested against
every other arm by sign flips, paired by replicate, and p is adjusted over the other arms by Holm's procedure. It is the best
only if it beats each of them at the study's alpha, and if no more of its networks failed than of the control's reference. An
arm that cannot be compared (no results, more than a tenth of the pairs ineligible) leaves the question open. The arm of the
A/A control is its reference under another name, so it is no rival.
Source: https://arxiv.org/abs/1811.12808
"""

from collections import Counter

import numpy as np

from analysis.effects.compare import COUNTED_STATES, FAILURES, MAX_INELIGIBLE
from analysis.inputs import Inputs
from analysis.stats.holm import directed_p, holm
from analysis.stats.signflip import sign_flip_p
from analysis.stats.spread import mean, sd
from analysis.trials.arms import planned_cells
from analysis.trials.records import agrees
from analysis.trials.table import rows_of
from analysis.words.columns import DASH, Column, count, flag, floats, integer, number, p_value, shared, text
from analysis.words.rows import Row, Rows, grouped, where
from study.registry import TABLES
from study.schema import FRACTION, STATES

_READ = (
    "cell", "phase", "state", "test/accuracy", "params", "flops", "boundary", "defaulted", "epochs",
    "train_seconds", "measure_seconds",
)  # fmt: skip
_PHASES = ("search", "confirm", "short")
_ACCURACY = "test/accuracy"


def _ended(state: str) -> Column:
    return count(f"n_{state}", state.capitalize(), meaning=f"confirmed trainings that ended {state}")


@TABLES.register(
    "cells",
    formula="one row a planned cell: networks by how they ended, accuracy of the completed ones, cost",
    source="",
    title="Cells",
    place=4.1,
    always=True,
    columns=(
        *shared("study cell dataset arm depth params flops"),
        count("n_search", "Search trials", meaning="search trials that ended"),
        count("n_confirm", "Confirmed", meaning="confirmed trainings that ended"),
        *(_ended(state) for state in STATES),
        number(
            "test_accuracy_mean",
            FRACTION,
            "Test accuracy ± sd",
            "percent",
            spread="test_accuracy_sd",
            missing=DASH,
            meaning="mean test accuracy of completed networks",
        ),
        number("test_accuracy_sd", FRACTION, meaning="standard deviation of it over networks"),
        text(
            "at_boundary",
            "Winners at a boundary",
            meaning="hyperparameters whose winning value lies in the outer tenth of its range, and of how many winners",
        ),
        count("n_defaulted", meaning="confirmed trainings at the default, no search trial having completed"),
        integer("epochs_search", "epochs", "Epochs, search", meaning="epochs of all search trials"),
        integer("epochs_confirm", "epochs", "Epochs, confirm", meaning="epochs of all confirmed trainings"),
        integer("epochs_short", "epochs", "Epochs, shortened", meaning="epochs of all shortened trainings"),
        *floats(
            {
                "search_seconds": "time of workers in search trials",
                "confirm_seconds": "time of workers in confirmed trainings",
                "short_seconds": "time of workers in shortened trainings",
                "measure_seconds": "time of workers in measuring",
            },
            "s",
        ),
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


def _reached(rows: Rows) -> list[float]:
    """Test accuracies, where there are any."""
    return [row[_ACCURACY] for row in rows if row[_ACCURACY] is not None]


def _row(rows: Rows) -> Row:
    by_phase = {phase: where(rows, phase=phase) for phase in _PHASES}
    confirm = by_phase["confirm"]
    states = Counter(row["state"] for row in confirm)
    reached = _reached(where(confirm, state="completed"))
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


@TABLES.register(
    "accuracy",
    formula="test accuracy of every planned arm: mean and standard deviation over the n completed networks, and how all of "
    "them ended. Bold: the highest of its dataset and depth, where it beats every other arm (paired sign-flip test, Holm "
    "over the other arms, at the study's alpha); exploratory",
    source="https://arxiv.org/abs/1811.12808",
    title="Test accuracy by arm",
    place=1.4,
    always=True,
    columns=(
        *shared("study dataset cell arm depth"),
        count("n_planned", "Planned", DASH, meaning="confirmed trainings planned by now"),
        count("n", "n", meaning="completed networks"),
        number(
            "mean",
            FRACTION,
            "Test accuracy ± sd",
            "percent",
            spread="sd",
            bold="best",
            missing=DASH,
            meaning="mean test accuracy of completed networks",
        ),
        number("sd", FRACTION, meaning="standard deviation of it over networks"),
        *(_ended(state) for state in COUNTED_STATES),
        number(
            "collapsed_mean",
            FRACTION,
            "Accuracy of the collapsed",
            "percent",
            meaning="mean test accuracy of collapsed networks",
        ),
        p_value(
            "p_others",
            "p against the others",
            meaning="of the highest mean of a dataset and depth: largest p against another arm, adjusted by Holm",
        ),
        flag("best", meaning="whether the arm is surely the best of its dataset and depth"),
    ),
    main=f"dataset depth arm mean n n_planned {' '.join(f'n_{state}' for state in COUNTED_STATES)} collapsed_mean p_others",
    row="one planned cell; mean and sd of the completed networks, collapsed_mean of the collapsed; p_others: of the highest "
    "mean in its dataset and depth, the largest of its p-values against the other arms, Holm-adjusted",
)
def accuracy_rows(inputs: Inputs) -> Rows:
    """One row per planned cell, by dataset and depth, then in the order of the spec."""
    spec = inputs.spec
    columns = ("cell", "state", "search_block", "replicate", _ACCURACY)
    confirmed = grouped(rows_of(inputs.trials, columns, phase="confirm"), "cell")
    rows = []
    for heads in grouped(planned_cells(spec, inputs.trials), "dataset", "depth").values():
        values = [_values(confirmed.get(head["cell"], [])) for head in heads]
        rivals = [i for i, head in enumerate(heads) if not (spec.control and agrees(head["levels"], spec.control.arm))]
        first, p_others = _against_the_others(values, rivals)
        ended = [Counter(row["state"] for row in confirmed.get(head["cell"], [])) for head in heads]
        collapsed = [mean(_reached(where(confirmed.get(head["cell"], []), state="collapsed"))) for head in heads]
        failed = [sum(states[state] for state in FAILURES) for states in ended]
        allowed = [
            num
            for head, num in zip(heads, failed, strict=True)
            if spec.control and agrees(head["levels"], spec.control.reference)
        ]
        for i, (head, reached, states) in enumerate(zip(heads, values, ended, strict=True)):
            completed = _completed(reached)
            rows.append(
                {
                    **head,
                    "n_planned": inputs.planned_replicates(head["cell"]),
                    **{"n": len(completed), "mean": mean(completed), "sd": sd(completed)},
                    **{f"n_{state}": states[state] for state in COUNTED_STATES},
                    "collapsed_mean": collapsed[i],
                    "p_others": p_others if i == first else None,
                    "best": i == first
                    and p_others is not None
                    and p_others <= spec.alpha
                    and (not allowed or failed[i] <= max(allowed)),
                }
            )
    return rows


_Values = dict[tuple[int, int], float | None]


def _values(rows: Rows) -> _Values:
    """(block, replicate) -> accuracy of a network that completed, ``None`` of one that did not."""
    return {
        (row["search_block"], row["replicate"]): row[_ACCURACY] if row["state"] == "completed" else None for row in rows
    }


def _completed(values: _Values) -> list[float]:
    return [value for value in values.values() if value is not None]


def _against_the_others(arms: list[_Values], rivals: list[int]) -> tuple[int | None, float | None]:
    """The rival with the highest mean, and its largest Holm-adjusted p against the others; ``None`` where one is untested."""
    reached = {i: found for i in rivals if (found := mean(_completed(arms[i]))) is not None}
    if len(reached) < 2:
        return None, None
    first = max(reached, key=lambda i: reached[i])
    adjusted = list(holm({str(i): _p(arms[first], arms[i]) for i in rivals if i != first}).values())
    return first, None if None in adjusted else max(p for p in adjusted if p is not None)


def _p(first: _Values, other: _Values) -> float | None:
    """Two-sided, one where ``first`` is not the better of the two; ``None`` where too few pairs are eligible."""
    shared = sorted(first.keys() & other.keys())
    pairs = [(first[pair], other[pair]) for pair in shared]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if not differences or len(differences) < (1 - MAX_INELIGIBLE) * len(shared):
        return None
    return directed_p(sign_flip_p(differences), float(np.mean(differences)), "higher")
