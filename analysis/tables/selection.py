"""What choosing on a split adds to its own score.

The authors' accuracy is the maximum over epochs on the split that also chose the epoch. How much that overstates is measured
here: one half of the validation split chooses its best epoch; its accuracy there is compared with that of the other half,
which had no say, at the same epoch.
Source: https://jmlr.org/papers/v11/cawley10a.html
"""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.effects.compare import FAILURES
from analysis.inputs import Inputs
from analysis.stats.spread import spread
from analysis.trials.table import rows_of
from analysis.words.columns import count, shared, spread_columns
from analysis.words.rows import Rows, grouped, where
from study.registry import TABLES
from study.schema import FRACTION

_HALVES = ("val/accuracy_half1", "val/accuracy_half2")


@TABLES.register(
    "selection_inflation",
    formula="by how much the best accuracy over epochs overstates, on the split that chose the epoch (what the authors "
    "report): a half of the validation split at its best epoch minus the other half at that epoch. Zero for a choice that "
    "costs nothing. Both ways: the mean with the halves exchanged too, which takes out that one half may be harder. Beside "
    "it: the best epoch minus the last, on the whole split",
    source="https://jmlr.org/papers/v11/cawley10a.html",
    title="Selection inflation",
    place=4.5,
    columns=(
        *shared("study cell dataset arm depth outcome scale"),
        count("n", "Networks", meaning="completed networks whose halves of validation are known"),
        count("n_failed", "Failed", meaning="networks that collapsed or diverged"),
        count("n_unknown", meaning="completed networks whose halves are not known"),
        *spread_columns(
            FRACTION,
            "Inflation",
            meaning="validation accuracy of the epoch that one half chooses, there minus on the other half",
            spread_kind="size",
        ),
        *spread_columns(
            FRACTION,
            "Both ways",
            meaning="mean of that with the first half choosing and with the second",
            prefix="both_ways_",
        ),
        *spread_columns(
            FRACTION,
            "Best epoch minus last",
            meaning="highest validation accuracy of an epoch minus that of the last",
            prefix="max_minus_final_",
        ),
    ),
    main="cell n n_failed mean sd both_ways_mean max_minus_final_mean",
    row="one cell; completed confirmed networks",
)
def selection_inflation_rows(inputs: Inputs) -> Rows:
    """One row per cell with a network whose halves are known; collapsed and diverged ones are counted, ``n_unknown`` too.

    A half has half of the images, so its inflation is larger than that of the whole split would be. Intervals are by sign
    flips over replicates, at 1 - ``spec.alpha``. Fractions of images.
    """
    groups = grouped(rows_of(inputs.trials, ("trial_key", "cell", "state"), phase="confirm"), "cell")
    rows = []
    for cell, members in groups.items():
        completed = [
            inputs.contents.replicates[row["trial_key"]]["curves"] for row in where(members, state="completed")
        ]
        found = [numbers for curves in completed if (numbers := inflation(curves)) is not None]
        if not found:
            continue
        one, both, gain = np.array(found).T
        head = inputs.heads[cell] | {"outcome": "val/accuracy", "scale": "difference"}
        counts = {"n": len(found), "n_failed": sum(r["state"] in FAILURES for r in members)}
        spreads = spread(one, inputs.spec.alpha) | spread(both, inputs.spec.alpha, prefix="both_ways_")
        spreads |= spread(gain, inputs.spec.alpha, prefix="max_minus_final_")
        rows.append(head | counts | {"n_unknown": len(completed) - len(found)} | spreads)
    return rows


def inflation(curves: Mapping[str, Sequence[float]]) -> tuple[float, float, float] | None:
    """For one training: inflation with half 1 choosing, its mean with either half choosing, and best epoch minus last.

    ``None`` where the curves lack the halves (trained before they were kept) or hold no number. Ties go to the first epoch.
    """
    if not all(curves.get(name) for name in (*_HALVES, "val/accuracy")):
        return None
    first, second, whole = (np.asarray(curves[name], dtype=np.float64) for name in (*_HALVES, "val/accuracy"))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    one = first.max() - second[first.argmax()]
    other = second.max() - first[second.argmax()]
    return float(one), float(one + other) / 2, float(whole.max() - whole[-1])
