"""https://arxiv.org/abs/1811.12808 (Raschka): test accuracy of every planned arm, and in bold the best where it is surely so.

In each dataset and depth the arm with the highest mean is tested against every other arm, paired by replicate, by sign
flips; p is adjusted over the other arms by Holm's procedure. It is the best only if each of them is beaten at the study's
alpha: an arm that cannot be compared (no results, more than a tenth of the pairs ineligible) leaves the question open. The
arm of the A/A control is its reference by another name, and no rival.
"""

from collections import Counter
from typing import Any

import numpy as np

from analysis.effects.compare import COUNTED_STATES, MAX_INELIGIBLE
from analysis.inputs import Inputs
from analysis.stats.holm import directed_p, holm
from analysis.stats.signflip import sign_flip_p
from analysis.stats.spread import sd
from analysis.trials.arms import planned_cells
from analysis.trials.records import agrees
from analysis.trials.table import rows_of
from analysis.words.columns import DASH, FRACTION, count, flag, number, p_value, shared
from study.registry import TABLES

_ACCURACY = "test/accuracy"


@TABLES.register(
    "accuracy",
    formula="test accuracy of every planned arm: mean and standard deviation over the n completed networks, and how all of "
    "them ended. Bold: the highest of its dataset and depth, where it beats every other arm (paired sign-flip test, Holm "
    "over the other arms, at the study's alpha); exploratory",
    source="https://arxiv.org/abs/1811.12808",
    title="Test accuracy by arm",
    place=1.4,
    columns=(
        *shared("study dataset cell arm depth"),
        count("n_planned", "Planned", DASH),
        count("n", "n"),
        number("mean", FRACTION, "Test accuracy ± sd", "percent", spread="sd", bold="best", missing=DASH),
        number("sd", FRACTION),
        *(count(f"n_{state}", state.capitalize()) for state in COUNTED_STATES),
        p_value("p_others", "p against the others"),
        flag("best"),
    ),
    main=f"dataset depth arm mean n n_planned {' '.join(f'n_{state}' for state in COUNTED_STATES)} p_others",
    row="one planned cell; mean and sd of the completed networks; p_others: of the highest mean in its dataset and depth, the "
    "largest of its p-values against the other arms, Holm-adjusted",
)
def accuracy_rows(inputs: Inputs) -> list[dict[str, Any]]:
    """One row a planned cell, by dataset and depth, then in the order of the spec."""
    spec = inputs.spec
    confirmed: dict[str, list[dict[str, Any]]] = {}
    columns = ("cell", "state", "search_block", "replicate", _ACCURACY)
    for row in rows_of(inputs.trials, columns, phase="confirm"):
        confirmed.setdefault(row["cell"], []).append(row)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for head in planned_cells(spec, inputs.trials):
        groups.setdefault((head["dataset"], head["depth"]), []).append(head)
    further = inputs.course.further if inputs.course else {}
    rows = []
    for heads in groups.values():
        values = [_values(confirmed.get(head["cell"], [])) for head in heads]
        rivals = [i for i, head in enumerate(heads) if not (spec.control and agrees(head["levels"], spec.control.arm))]
        first, p_others = _against_the_others(values, rivals)
        for i, (head, reached) in enumerate(zip(heads, values, strict=True)):
            rows.append(
                {
                    **head,
                    "n_planned": None if spec.joint else further.get(head["cell"], spec.looks[0]) * spec.replicates,
                    **_numbers(list(reached.values())),
                    **_states(confirmed.get(head["cell"], [])),
                    "p_others": p_others if i == first else None,
                    "best": i == first and p_others is not None and p_others <= spec.alpha,
                }
            )
    return rows


_Values = dict[tuple[int, int], float | None]


def _values(rows: list[dict[str, Any]]) -> _Values:
    """(block, replicate) -> accuracy of a network that completed, ``None`` of one that did not."""
    return {
        (row["search_block"], row["replicate"]): row[_ACCURACY] if row["state"] == "completed" else None for row in rows
    }


def _numbers(values: list[float | None]) -> dict[str, Any]:
    reached = np.array([value for value in values if value is not None])
    return {
        "n": len(reached),
        "mean": float(reached.mean()) if len(reached) else None,
        "sd": sd(reached),
    }


def _states(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts = Counter(row["state"] for row in rows)
    return {f"n_{state}": counts[state] for state in COUNTED_STATES}


def _against_the_others(arms: list[_Values], rivals: list[int]) -> tuple[int | None, float | None]:
    """The rival with the highest mean, and its largest Holm-adjusted p against the others; ``None`` where one is untested."""
    means = {i: _numbers(list(arms[i].values()))["mean"] for i in rivals}
    reached = {i: mean for i, mean in means.items() if mean is not None}
    if len(reached) < 2:
        return None, None
    first = max(reached, key=lambda i: reached[i])
    adjusted = list(holm({str(i): [_p(arms[first], arms[i])] for i in rivals if i != first}).values())
    return first, None if None in adjusted else max(p for p in adjusted if p is not None)


def _p(first: _Values, other: _Values) -> float | None:
    """Two-sided, one where ``first`` is not the better of the two; ``None`` where too few pairs are eligible."""
    shared = sorted(first.keys() & other.keys())
    pairs = [(first[pair], other[pair]) for pair in shared]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if not differences or len(differences) < (1 - MAX_INELIGIBLE) * len(shared):
        return None
    return directed_p(sign_flip_p(differences), float(np.mean(differences)), "higher")
