"""Smoothness at matched accuracy: is an arm smoother, or just less (or more) far along?

Per replicate, both arms' statistics are interpolated along each arm's own path (``analysis/tables/paths.py``) at one common
validation accuracy: that of the lower arm's last network minus a point. They are interpolated again at one common training
loss, on its logarithm: that of the arm whose last network has the higher one. A replicate whose path never meets the level is
not estimable; nothing is extrapolated. What is matched was found, not set, so a difference is an association, no effect.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis.effects.compare import MAX_INELIGIBLE, subtract
from analysis.effects.readings import Reading, readings
from analysis.inputs import Inputs
from analysis.stats.crossing import value_at
from analysis.stats.spread import mean, p_value, spread
from analysis.tables.paths import BUDGETS, Paths, all_paths, eligible, last, of_claims, of_sides, smoothness_outcomes
from analysis.trials.grid import Floats
from analysis.words.columns import OF_SCALE, count, floats, number, shared, spread_columns, text
from analysis.words.rows import Rows
from study.registry import TABLES

POINT = 0.01
LABEL = "associational"
ESTIMATED, PARTLY, NOT_ESTIMABLE = "estimated", "partly", "not_estimable"


@TABLES.register(
    "matched_accuracy",
    formula="smoothness at one common validation accuracy (the lower arm's last minus a point) or training loss (the higher "
    "last one), by linear interpolation within each replicate: along fully annealed trainings of a share and all of the "
    "epochs, and, not annealed, along the confirmed training itself. Associational: what is matched was found, not set",
    source="",
    title="Smoothness at matched accuracy",
    place=2.2,
    shown=of_claims,
    columns=(
        text("study"),
        text("along", "Along"),
        text("matched_on", "Matched on", "outcome"),
        *shared("dataset arm reference stratum outcome scale"),
        text("status", "Status"),
        *shared("label n_pairs"),
        count("n_not_estimable", "Not estimable"),
        *shared("n_excluded"),
        number("level_mean", "of matched_on", "Level", "interval", low="level_low", high="level_high"),
        *floats("level_low level_high", "of matched_on"),
        *spread_columns(OF_SCALE, "Difference"),
        *shared("p_sign_flip"),
        number("unmatched_mean", OF_SCALE, "Unmatched", "effect"),
    ),
    main="along matched_on dataset arm reference stratum outcome status n_pairs n_not_estimable n_excluded level_mean mean "
    "unmatched_mean sd p_sign_flip label",
    row="one contrast, dataset, stratum, outcome, path and what is matched; arm minus reference by replicate",
)
def matched_accuracy_rows(inputs: Inputs) -> Rows:
    """One row per reading, path and matched quantity; empty where no training is shortened and nothing measured in training.

    A replicate counts if both networks completed in every stratum; it is estimable if the level lies on both paths in
    every one. ``status`` is ``not_estimable`` where no replicate is, ``partly`` where more than a tenth is not. ``level_low``
    and ``level_high`` are the extremes over replicates; ``unmatched_mean`` is of the last networks of the same pairs.
    """
    outcomes = smoothness_outcomes(inputs)
    paths = all_paths(inputs, outcomes)
    rows = [
        row
        for reading in (readings(inputs.grid, inputs.spec.all_contrasts(), outcomes) if paths else ())
        for path in paths
        for row in _rows(inputs, reading, path)
    ]
    return sorted(rows, key=lambda row: (row["along"] != BUDGETS, row["matched_on"] != "val/accuracy"))


def _rows(inputs: Inputs, reading: Reading, paths: Paths) -> Iterator[dict[str, Any]]:
    values = paths.values[reading.outcome.name]
    if not np.isfinite(values).any():  # not measured along this path
        return
    head = reading.head | {"along": paths.along}
    head["label"] = LABEL if paths.along == BUDGETS else f"{LABEL}, not annealed"
    ok = eligible(reading)
    started = int(np.count_nonzero((reading.arm.present | reading.reference.present).any(axis=0)))
    arm, reference = of_sides(values, reading)
    unmatched = subtract(last(arm), last(reference)).mean(axis=0) if len(arm) else np.zeros(0)
    for name, x, level in _levels(reading, paths):
        ours, theirs = (value_at(level, at, side) for at, side in zip(x, (arm, reference), strict=True))
        d = subtract(ours, theirs).mean(axis=0) if len(arm) else np.zeros(0)
        used = ok & np.isfinite(d)
        shown = np.exp(level) if name == "train/loss" else level
        at_level = shown.mean(axis=0)[used] if len(arm) else np.zeros(0)
        num, missing = int(used.sum()), int((ok & ~used).sum())
        yield {
            **head,
            "matched_on": name,
            "status": _status(num, missing),
            "n_pairs": num,
            "n_not_estimable": missing,
            "n_excluded": started - num - missing,
            "level_mean": mean(at_level),
            "level_low": float(at_level.min()) if num else None,
            "level_high": float(at_level.max()) if num else None,
            **spread(d[used], inputs.spec.alpha),
            "p_sign_flip": p_value(d[used]),
            "unmatched_mean": mean(unmatched[used]),
        }


def _levels(reading: Reading, paths: Paths) -> Iterator[tuple[str, tuple[Floats, Floats], Floats]]:
    """What is matched: its name, both sides' paths in it, and the common level (num_strata, num_pairs)."""
    accuracy = of_sides(paths.accuracy, reading)
    yield "val/accuracy", accuracy, np.minimum(*map(last, accuracy)) - POINT
    # a loss of nothing has no logarithm, and such a point no place on the path
    arm, reference = of_sides(np.log(np.where(paths.loss > 0, paths.loss, np.nan)), reading)
    yield "train/loss", (arm, reference), np.maximum(last(arm), last(reference))


def _status(num: int, missing: int) -> str:
    if not num:
        return NOT_ESTIMABLE
    return PARTLY if missing > MAX_INELIGIBLE * (num + missing) else ESTIMATED
