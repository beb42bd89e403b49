"""Merge operators that stand for all where tests cross them with much else, and the authors' rows as their notes have them."""

import csv
from pathlib import Path

import study.models  # noqa: F401  registers the operators
from study.models.merges.rows import ROWS
from study.registry import MERGES


def shape(form):
    """What a form is but for its numbers: which path is normalised, which is a gate, and how they are joined."""
    return form.add, form.x.norm, form.x.gate is None, form.f.norm, form.f.gate is None


def clamps(form) -> int:
    return sum(value is not None for path in (form.x, form.f) for value in (path.shift, path.scale))


# of each shape the row with the most clamps, for all rows at the skip are one class; of those inside the branch two; NAM
OF_SHAPES = {
    max((row for row, form in ROWS.items() if shape(form) == one), key=lambda row: clamps(ROWS[row]))
    for one in map(shape, ROWS.values())
}
SAMPLED = OF_SHAPES | {57, 58, 59}
# all operators but the rows that are not sampled, and without those that match another's cost
PLAIN = [e.name for e in MERGES if "matches" not in e.traits and e.traits.get("row") in {None, *SAMPLED}]
MATCHED = [entry.name for entry in MERGES if "matches" in entry.traits]


def authors_rows() -> list[dict[str, str]]:
    """row, group, merge, clamped_before_every_forward, best_test_accuracy_percent: 59 rows."""
    with (Path(__file__).parent / "authors_rows.csv").open() as file:
        return list(csv.DictReader(file))
