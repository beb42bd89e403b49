"""Smoothness at matched accuracy: is an arm smoother, or just less (or more) far along?

Every confirmed network has a path of accuracy, training loss and smoothness. Along *budgets* each point is a training of its
own, with the whole schedule in a share of the epochs; the last is the confirmed network. All are annealed, so they differ in
training length alone. Along the *training* points are epochs of the one confirmed training; its learning rate is still high in
the middle.

Per replicate, both arms' statistics are interpolated along each arm's own path at one common validation accuracy: that of the
lower arm's last network minus a point. They are interpolated again at one common training loss, on its logarithm: that of the
arm whose last network has the higher one. A replicate whose path never meets the level is not estimable; nothing is
extrapolated. What is matched was found, not set, so a difference is an association, no effect.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.effects.compare import MAX_INELIGIBLE, subtract
from analysis.effects.readings import Reading, readings
from analysis.effects.table import contrast_key, shown_strata
from analysis.inputs import Inputs
from analysis.stats.crossing import value_at
from analysis.stats.spread import mean, p_value, spread
from analysis.trials.grid import ConfirmGrid, Flags, Floats, label
from analysis.trials.outcomes import ReadOutcome, other_scales, outcomes_of
from analysis.trials.shortened import FULL, short_shares
from analysis.words.columns import OF_SCALE, count, floats, number, shared, spread_columns, text
from analysis.words.rows import Row, Rows
from study.registry import TABLES

POINT = 0.01
LABEL = "associational"
ESTIMATED, PARTLY, NOT_ESTIMABLE = "estimated", "partly", "not_estimable"

BUDGETS, TRAINING = "budgets, annealed", "training, not annealed"
_ACCURACY, _LOSS = "val/accuracy", "train/loss"

_IDENTITY = ["cell", "search_block", "replicate"]


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
    claimed = [name for name in spec.claimed_outcomes if "/" not in name]
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
        text("study", meaning="the study's name"),
        text(
            "along",
            "Along",
            meaning="the path: trainings of a share of the epochs (annealed), or one training (not annealed)",
        ),
        text(
            "matched_on",
            "Matched on",
            "outcome",
            meaning="what both sides are equal in: validation accuracy or training loss",
        ),
        *shared("dataset arm reference stratum outcome scale"),
        text(
            "status", "Status", meaning="whether nine of ten pairs can be estimated: estimated, partly, not_estimable"
        ),
        *shared("label n_pairs"),
        count("n_not_estimable", "Not estimable", meaning="pairs in which a path never meets the level"),
        *shared("n_excluded"),
        number(
            "level_mean",
            "of matched_on",
            "Level",
            "interval",
            low="level_low",
            high="level_high",
            meaning="mean level at which the two are compared",
        ),
        *floats({"level_low": "the lowest of a pair", "level_high": "the highest of a pair"}, "of matched_on"),
        *spread_columns(OF_SCALE, "Difference", meaning="mean of arm minus reference at the level that both reach"),
        *shared("p_sign_flip"),
        number(
            "unmatched_mean",
            OF_SCALE,
            "Unmatched",
            "effect",
            meaning="mean difference of the same pairs at the end of training",
        ),
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
    of_key = short_shares(inputs.spec, inputs.contents)
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
