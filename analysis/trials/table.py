"""The table of trials, one row per replicate (what it was given, cost, reached; what was measured on it), and the curves."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.trials.columns import (
    CURVE_OUTCOMES,
    METRICS,
    RECORDED,
    of_estimate,
    of_metric,
    of_setting,
    with_error,
)
from analysis.trials.records import current_measures, current_records
from search_spaces import Choice, Level, Spec
from study.results.ledger import Contents
from study.schema import COST_COLUMNS, IDENTITY_COLUMNS, EstimateRecord, MeasureRecord, Quantity, ReplicateRecord

_INTEGERS = ("replicate", "number", "seed", "depth", "width", "search_block", "epochs", "params", "flops")
_LABEL = pa.dictionary(pa.int32(), pa.string())
_CURVES = pa.schema(
    [
        pa.field(quantity.name, kind, metadata=quantity.metadata)
        for kind, quantity in (
            *((_LABEL, RECORDED[name]) for name in ("trial_key", "cell", "phase")),
            (pa.int64(), replace(RECORDED["search_block"], name="block")),
            (_LABEL, Quantity(name="metric", meaning="what the curve is of: split/name")),
            (pa.int64(), Quantity(name="epoch", meaning="epochs trained so far", unit="epochs")),
            (pa.float64(), Quantity(name="value", meaning="the metric after this epoch", unit="of the row's outcome")),
        )
    ],
    metadata={"row": "one replicate, metric and epoch"},
)


def trials_table(
    spec: Spec, contents: Contents, known: Mapping[str, Iterable[Quantity]] = MappingProxyType({})
) -> pa.Table:
    """One row per replicate record, superseded ones left out, in a fixed order with fixed types.

    Columns: identity, further factors, nuisance values, cost, ``defaulted``, ``boundary`` (comma-joined), metrics, then
    each estimate with ``_stderr`` and ``_converged``. What was not measured, or is NaN, is null. Each field's metadata hold
    ``description``, ``unit`` and ``statistic``; ``known`` maps a statistic to what it estimates.

    Raises ``ValueError`` when two statistics give estimates of one name.
    """
    records = current_records(spec, contents)
    seconds: dict[str, float] = {}
    for measure in contents.measures.values():
        seconds[measure["trial_key"]] = seconds.get(measure["trial_key"], 0.0) + measure["measure_seconds"]
    own: list[dict[str, Any]] = [
        {
            **record["config"],
            **record,
            "study": spec.name,
            "search_block": record["block"],
            "measure_seconds": seconds.get(record["trial_key"], 0.0),
            "boundary": ",".join(record["boundary"]),
        }
        for record in records
    ]

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([row.get(name) for row in own], pa.int64() if name in _INTEGERS else kind)

    columns = {name: column(name, pa.string()) for name in IDENTITY_COLUMNS}
    columns |= _settings(spec, records)
    columns |= {name: column(name, pa.float64()) for name in COST_COLUMNS}
    columns |= {"defaulted": column("defaulted", pa.bool_()), "boundary": column("boundary", pa.string())}
    columns |= _metrics(records)
    columns |= _of_curves(spec, records)
    settings = {setting_column(name): name for name in (*spec.factor_names(), *spec.nuisance)}
    described = {
        name: of_setting(name, settings.get(name, name)) if name in settings or "/" not in name else of_metric(name)
        for name in columns
        if name not in RECORDED
    }
    measured, owners = _estimates(spec, records, current_measures(contents))
    for name, estimates in measured.items():
        if name in columns:
            raise ValueError(f"an estimate is called {name!r}, which is another column's name")
        columns[name] = estimates
    for name, statistic in owners.items():
        described |= with_error(of_estimate(name, statistic, known.get(statistic, ())))
    fields = [
        pa.field(name, values.type, metadata=(RECORDED | described)[name].metadata) for name, values in columns.items()
    ]
    schema = pa.schema(fields, metadata={"study": spec.name, "row": "one replicate"})
    return pa.Table.from_arrays(list(columns.values()), schema=schema)


def setting_column(name: str) -> str:
    """The column that holds factor or nuisance ``name``: its own name unless a measured column already has that."""
    return f"{name}_setting" if name in (*COST_COLUMNS, "defaulted", "boundary") else name


def estimate_names(trials: pa.Table) -> list[str]:
    """Names of the estimates in a table of trials, in order."""
    names = set(trials.column_names)
    return [name for name in trials.column_names if {f"{name}_stderr", f"{name}_converged"} <= names]


def rows_of(trials: pa.Table, columns: Iterable[str] = (), *, phase: str = "") -> list[dict[str, Any]]:
    """Rows as mappings, of ``phase`` alone if one is named, and of only ``columns``: all of them take long and much memory."""
    table = trials.filter(pc.equal(trials["phase"], phase)) if phase else trials
    names = list(dict.fromkeys(columns))
    rows: list[dict[str, Any]] = (table.select(names) if names else table).to_pylist()
    return rows


def _settings(spec: Spec, records: list[ReplicateRecord]) -> dict[str, pa.Array]:
    """Factors that are no identity column, then nuisance values."""
    levels = {name: spec.levels_of(name) for name in spec.factor_names() if name not in IDENTITY_COLUMNS}
    for name in spec.nuisance:
        nuisance = spec.widest(name)
        levels[name] = nuisance.choices if isinstance(nuisance, Choice) else [nuisance.default]
    columns = {}
    for name, known in levels.items():
        kind = _level_type(known)
        given = [r["config"].get(name) for r in records]
        if pa.types.is_string(kind):
            given = [None if value is None else str(value) for value in given]
        columns[setting_column(name)] = pa.array(given, kind)
    return columns


def _level_type(levels: Iterable[Level]) -> pa.DataType:
    kinds = {type(level) for level in levels}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds <= {int, float} else pa.string()


def _metrics(records: list[ReplicateRecord]) -> dict[str, pa.Array]:
    seen = {name for record in records for name in record["metrics"]}
    metrics = [quantity.name for quantity in METRICS]
    names = [*metrics, *sorted(seen.difference(metrics))]
    # from_pandas: NaN, a number that does not exist, becomes null
    return {name: pa.array([r["metrics"].get(name) for r in records], pa.float64(), from_pandas=True) for name in names}


def _of_curves(spec: Spec, records: list[ReplicateRecord]) -> dict[str, pa.Array]:
    """``CURVE_OUTCOMES`` that ``spec`` names; null where there is no curve, or it holds what is no number."""
    asked = {*spec.claimed_outcomes, *(known.outcome for known in spec.published)}
    columns = {}
    for name, outcome in CURVE_OUTCOMES.items():
        if name not in asked:
            continue
        curves = [record["curves"].get(name.rpartition("_")[0], []) for record in records]
        whole = [curve and all(map(math.isfinite, curve)) for curve in curves]
        found = [outcome(curve) if fit else None for curve, fit in zip(curves, whole, strict=True)]
        columns[name] = pa.array(found, pa.float64())
    return columns


def _estimates(
    spec: Spec, records: list[ReplicateRecord], measures: dict[str, dict[str, MeasureRecord]]
) -> tuple[dict[str, pa.Array], dict[str, str]]:
    """Three columns per estimate, and the statistic of each estimate.

    Statistics stand in the order of the spec, estimates in the order they are reported.
    """
    owners: dict[str, str] = {}
    held: dict[str, list[tuple[int, dict[str, EstimateRecord]]]] = {}
    for i, record in enumerate(records):
        for statistic, measure in measures.get(record["trial_key"], {}).items():
            held.setdefault(statistic, []).append((i, measure["estimates"]))
            for name in measure["estimates"]:
                if owners.setdefault(name, statistic) != statistic:
                    raise ValueError(f"statistics {owners[name]!r} and {statistic!r} both give an estimate {name!r}")
    planned = list(spec.measure.statistics)
    order = [*planned, *sorted(set(owners.values()).difference(planned))]
    columns = {}
    owners = {name: owners[name] for name in sorted(owners, key=lambda name: order.index(owners[name]))}
    for name in owners:
        found = [(i, estimates[name]) for i, estimates in held[owners[name]] if name in estimates]
        places = [i for i, _ in found]
        for column, part in ((name, "value"), (f"{name}_stderr", "stderr"), (f"{name}_converged", "converged")):
            values = np.full(len(records), None, dtype=object)
            values[places] = [estimate[part] for _, estimate in found]  # type: ignore[literal-required]
            kind = pa.bool_() if part == "converged" else pa.float64()
            columns[column] = pa.array(values, kind, from_pandas=True)
    return columns, owners


def curves_table(spec: Spec, contents: Contents) -> pa.Table:
    """Training curves in long form, rows ordered as ``trials_table``; ``epoch`` counts from 1, NaN becomes null."""
    records = current_records(spec, contents)
    series = [(i, metric, values) for i, r in enumerate(records) for metric, values in sorted(r["curves"].items())]
    lengths = np.array([len(values) for _, _, values in series], dtype=np.int64)
    owner = np.repeat(np.array([i for i, _, _ in series], dtype=np.int64), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    values = np.concatenate([np.zeros(0), *(np.asarray(values, dtype=np.float64) for _, _, values in series)])

    def label(names: list[str], positions: np.ndarray) -> pa.Array:
        known = pa.array(names, pa.string()).dictionary_encode()
        return pc.take(known, pa.array(positions, pa.int64())).cast(_LABEL)

    columns = [
        *(label([record[name] for record in records], owner) for name in ("trial_key", "cell", "phase")),
        pa.array(np.array([record["block"] for record in records], dtype=np.int64)[owner], pa.int64()),
        label([metric for _, metric, _ in series], np.repeat(np.arange(len(series)), lengths)),
        pa.array(np.arange(len(owner)) - starts + 1, pa.int64()),
        pa.array(values, pa.float64(), from_pandas=True),
    ]
    return pa.Table.from_arrays(columns, schema=_CURVES)
