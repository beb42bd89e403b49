"""The path of every confirmed network: accuracy, training loss and smoothness along its budgets, or along its training.

Along *budgets* each point is a training of its own, with the whole schedule in a share of the epochs; the last is the
confirmed network. All are annealed, so they differ in training length alone. Along the *training* points are epochs of the
one confirmed training; its learning rate is still high in the middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.effects.readings import Reading
from analysis.effects.strata import contrast_key, shown_strata
from analysis.inputs import Inputs
from analysis.tables.budgets import FULL, short_shares
from analysis.trials.grid import ConfirmGrid, Flags, Floats, label
from analysis.trials.outcomes import ReadOutcome, other_scales, outcomes_of
from analysis.words.rows import Row

BUDGETS, TRAINING = "budgets, annealed", "training, not annealed"
_ACCURACY, _LOSS = "val/accuracy", "train/loss"


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Points of each network: arrays (num_networks + 1, num_points), NaN where there is none.

    A network is a row of the grid's confirmed replicates; the row beyond them, all NaN, is that of ``NO_RECORD``. ``points``
    are shares of the epochs, or epochs. ``values`` are by outcome, on the scale on which it is subtracted.
    """

    along: str
    points: tuple[float, ...]
    accuracy: Floats
    loss: Floats
    values: dict[str, Floats]


def smoothness_outcomes(inputs: Inputs) -> list[ReadOutcome]:
    """The statistics that claims name and the same on other scales, where measured; every one where no claim names one."""
    spec = inputs.spec
    claimed = [o.name for claim in spec.claims.values() for o in claim.outcomes if "/" not in o.name]
    wanted = {*claimed, *(other for name in claimed for other in other_scales(name))}
    found = [outcome for outcome in outcomes_of(spec, inputs.trials) if outcome.is_estimate]
    return [outcome for outcome in found if outcome.name in wanted] if claimed else found


def of_claims(inputs: Inputs, table: pa.Table) -> pa.Table:
    """What a report shows: contrasts of claims on these statistics and the A/A control (all, if no claim names one), pooled
    and in the strata worth showing.
    """
    spec = inputs.spec
    rows = table.to_pylist()
    strata = shown_strata(rows)
    claims = [claim for claim in spec.claims.values() if any("/" not in o.name for o in claim.outcomes)]
    asked = [*(c for claim in claims for c in claim.contrasts()), *filter(None, [spec.control])]
    wanted = {(label(c.arm), label(c.reference)) for c in asked}
    kept = [
        row["stratum"] in strata[contrast_key(row)] and (not claims or (row["arm"], row["reference"]) in wanted)
        for row in rows
    ]
    return table.filter(pa.array(kept, pa.bool_()))


def all_paths(inputs: Inputs, outcomes: Sequence[ReadOutcome]) -> list[Paths]:
    """Of both kinds, those that the study has."""
    found = [make(inputs, outcomes) for make in (budget_paths, training_paths)]
    return [paths for paths in found if paths is not None]


def _scaled(paths: Paths, outcomes: Sequence[ReadOutcome]) -> Paths:
    return replace(paths, values={outcome.name: outcome.scaled(paths.values[outcome.name]) for outcome in outcomes})


def budget_paths(inputs: Inputs, outcomes: Sequence[ReadOutcome]) -> Paths | None:
    """Along the shares that the study asks for; ``None`` where it asks for none. Only completed networks have points."""
    shares = (*sorted(inputs.spec.budget.shortened), FULL)
    if len(shares) == 1:
        return None
    grid = inputs.grid
    paths = _empty(BUDGETS, shares, grid, outcomes)
    of_key = short_shares(inputs)
    rows = {_who(row): i for i, row in enumerate(grid.confirm.select(_IDENTITY).to_pylist())}
    trials = inputs.trials
    measured = [o for o in outcomes if o.name in trials.column_names]
    names = [*_IDENTITY, "phase", "trial_key", "state", _ACCURACY, _LOSS]
    names += [name for o in measured for name in (o.name, f"{o.name}_converged")]
    for row in trials.filter(pc.not_equal(trials["phase"], "search")).select(names).to_pylist():
        share = FULL if row["phase"] == "confirm" else of_key.get(row["trial_key"])
        network = rows.get(_who(row))
        if share is None or network is None or row["state"] != "completed":
            continue
        at = network, shares.index(share)
        paths.accuracy[at], paths.loss[at] = _number(row[_ACCURACY]), _number(row[_LOSS])
        for outcome in measured:
            if row[f"{outcome.name}_converged"]:
                paths.values[outcome.name][at] = _number(row[outcome.name])
    return _scaled(paths, outcomes)


def training_paths(inputs: Inputs, outcomes: Sequence[ReadOutcome]) -> Paths | None:
    """Along the epochs at which something was measured in the middle of training; ``None`` where nothing was.

    Accuracy and loss are those of the learning curves. Networks that did not complete have a path as well.
    """
    grid = inputs.grid
    records = [inputs.contents.replicates[key] for key in grid.confirm["trial_key"].to_pylist()]
    epochs = sorted({point["epoch"] for record in records for point in record.get("trajectory", ())})
    if not epochs:
        return None
    column = {epoch: k for k, epoch in enumerate(epochs)}
    paths = _empty(TRAINING, tuple(epochs), grid, outcomes)
    for network, record in enumerate(records):
        for point in record.get("trajectory", ()):
            at = network, column[point["epoch"]]
            for name, values in ((_ACCURACY, paths.accuracy), (_LOSS, paths.loss)):
                curve = record["curves"].get(name, ())
                values[at] = curve[point["epoch"] - 1] if point["epoch"] <= len(curve) else np.nan
            for outcome in outcomes:
                estimate = point["estimates"].get(outcome.name)
                if estimate and estimate["converged"]:
                    paths.values[outcome.name][at] = estimate["value"]
    return _scaled(paths, outcomes)


def eligible(reading: Reading) -> Flags:
    """The replicates whose networks completed on both sides in every stratum, within equal budgets."""
    return np.asarray(reading.completed.all(axis=0) & bool(len(reading.completed)))


def last(values: Floats) -> Floats:
    """The last number of each path: (..., num_points) -> (...), NaN for a path without one."""
    there = np.isfinite(values)
    position = values.shape[-1] - 1 - np.argmax(there[..., ::-1], axis=-1)
    found = np.take_along_axis(values, position[..., None], axis=-1)[..., 0]
    return np.asarray(np.where(there.any(axis=-1), found, np.nan))


def of_sides(values: Floats, reading: Reading) -> tuple[Floats, Floats]:
    """The paths of arm and reference: (num_strata, num_pairs, num_points) each."""
    return values[reading.arm.rows], values[reading.reference.rows]


_IDENTITY = ["cell", "search_block", "replicate"]


def _who(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _IDENTITY)


def _empty(along: str, points: tuple[float, ...], grid: ConfirmGrid, outcomes: Sequence[ReadOutcome]) -> Paths:
    shape = grid.confirm.num_rows + 1, len(points)
    return Paths(
        along=along,
        points=points,
        accuracy=np.full(shape, np.nan),
        loss=np.full(shape, np.nan),
        values={outcome.name: np.full(shape, np.nan) for outcome in outcomes},
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else value
