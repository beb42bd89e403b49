"""What MLflow shows of a study as a whole, worked out from its tables: a run for each cell, verdicts, main effects.

A cell's run holds means over its completed networks (those of statistics over converged values), each with its interval as
``NAME low`` and ``NAME high``, mean curves, its pictures, and what tuning chose: the median winner of each hyperparameter.
So cells are compared by as many runs as there are cells, whatever number of runs a page of MLflow's loads.
"""

import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analysis.figures.by_cell import pictures
from analysis.inputs import Inputs
from analysis.stats.spread import mean_interval
from analysis.trials.records import current_records
from analysis.trials.table import estimate_names
from search_spaces import FloatRange
from study.schema import STATES, ReplicateRecord
from study.tracking.runs import (
    DIGEST,
    SUMMARY_PHASE,
    Wanted,
    WantedRun,
    as_params,
    curves_of,
    finite,
    headlines,
    outcomes,
)

# settings of a replicate that its cell does not have
_OF_REPLICATES = ("seed", "split_seed")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a study's end adds to its view: main effects by name, a run for each cell, the experiment's description."""

    headlines: Mapping[str, float] = field(default_factory=dict)
    cells: Sequence[WantedRun] = ()
    description: str = ""


def summarise(inputs: Inputs) -> Summary:
    """The summary of a study, finished or not."""
    return Summary(
        headlines=headlines(inputs.effects.to_pylist()),
        cells=cell_runs(inputs),
        description=_description(inputs),
    )


def _description(inputs: Inputs) -> str:
    """The study's title with each claim's verdict, which MLflow shows always, then their answers, as Markdown."""
    found, several = inputs.findings, len({each.dataset for each in inputs.findings}) > 1
    names = [f"{each.name} on {each.dataset}" if several else each.name for each in found]
    verdicts = ", ".join(f"{name} {each.verdict}" for name, each in zip(names, found, strict=True))
    title = inputs.spec.title or inputs.spec.name
    lines = [
        f"- **{name}, {each.verdict}: {each.text}.** {each.sentence}" for name, each in zip(names, found, strict=True)
    ]
    return "\n".join([f"{title}: {verdicts}", "", *lines]) if lines else title


def cell_runs(inputs: Inputs) -> list[WantedRun]:
    """A run for each cell with confirmed networks, in the order of the tables."""
    cells: dict[str, list[ReplicateRecord]] = {}
    for record in current_records(inputs.spec, inputs.contents):
        if record["phase"] == "confirm":
            cells.setdefault(record["cell"], []).append(record)
    wanted, draw = Wanted(inputs.spec, inputs.contents), pictures(inputs)
    kept: dict[str, list[str]] = {}
    for key, measure in inputs.contents.measures.items():
        if measure.get("kept"):
            kept.setdefault(measure["trial_key"], []).append(f"{key} {measure.get('kept_checksums')}")
    runs: list[WantedRun] = []
    for cell, records in cells.items():
        keys = [record["trial_key"] for record in records]
        tables = sorted(table for key in keys for table in kept.get(key, []))
        run = WantedRun(
            name=wanted.label(records[0]),
            status="FINISHED",
            params=_settings(inputs, records),
            tags={"study": inputs.spec.name, "phase": SUMMARY_PHASE, "cell": cell, "label": wanted.label(records[0])},
            metrics=_values(inputs, cell, records),
            curves=_mean_curves(records),
            seconds=sum(record["train_seconds"] for record in records),
            figures=functools.partial(draw, keys) if tables else None,
        )
        said = json.dumps([run.name, run.params, run.metrics, run.curves, tables]).encode()
        # cells sorted by this stand in the order of the tables
        run.tags.update({"order": f"{len(runs):03d}", DIGEST: hashlib.sha256(said).hexdigest()})
        runs.append(run)
    return runs


def _settings(inputs: Inputs, records: Sequence[ReplicateRecord]) -> dict[str, str]:
    """What all replicates share, and of each tuned value the median winner with the least and the greatest."""
    configs = [record["config"] for record in records]
    nuisance = inputs.spec.nuisance
    shared = {
        name: value
        for name, value in configs[0].items()
        if name not in (*_OF_REPLICATES, *nuisance) and all(config.get(name) == value for config in configs)
    }
    tuned = {
        name: _winners([config[name] for config in configs], isinstance(inputs.spec.widest(name), FloatRange))
        for name in nuisance
    }
    return as_params({"cell": records[0]["cell"], **shared, **tuned})


def _winners(values: Sequence[Any], ranged: bool) -> str:
    """Of a range ``0.12 (0.03 to 0.4)``; of choices, how often each won."""
    if len(set(values)) == 1:
        return str(values[0])
    if ranged:
        return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
    return ", ".join(f"{value} {count}" for value, count in Counter(map(str, values)).most_common())


def _values(inputs: Inputs, cell: str, records: Sequence[ReplicateRecord]) -> dict[str, float]:
    """Means with intervals, those that claims are about first; medians of tuned values; how the networks ended."""
    trials, found = inputs.trials, dict[str, float]()
    of_cell = pc.and_(pc.equal(trials["cell"], cell), pc.equal(trials["phase"], "confirm"))
    rows = trials.filter(pc.and_(of_cell, pc.equal(trials["state"], "completed")))
    estimates = estimate_names(trials)
    names = [name for name in trials.column_names if "/" in name and pa.types.is_floating(trials[name].type)]
    first = [name for name in outcomes(inputs.spec) if name in (*names, *estimates)]
    for name in dict.fromkeys((*first, *names, *estimates)):
        column = rows[name].filter(rows[f"{name}_converged"]) if name in estimates else rows[name]
        found |= _mean(name, column.drop_null().to_numpy(), inputs.spec.alpha)
    for name in inputs.spec.nuisance:
        if isinstance(inputs.spec.widest(name), FloatRange):
            found[f"tuned/{name}"] = median(record["config"][name] for record in records)
    states = Counter(record["state"] for record in records)
    found |= {"num_replicates": len(records)} | {f"num_{state}": states[state] for state in STATES}
    return finite(found)


def _mean(name: str, values: Any, alpha: float) -> Iterator[tuple[str, float]]:
    """The mean of ``values`` (n,), and from two on its t interval."""
    if len(values):
        centre = float(values.mean())
        yield name, centre
        if len(values) > 1:
            low, high = mean_interval(centre, float(values.std(ddof=1)), len(values), alpha)
            yield from ((f"{name} low", low), (f"{name} high", high))


def _mean_curves(records: Collection[ReplicateRecord]) -> dict[str, list[tuple[int, float]]]:
    """At each epoch the mean over the completed networks that have a finite value there."""
    points: dict[str, dict[int, list[float]]] = {}
    for record in records:
        if record["state"] == "completed":
            for name, curve in curves_of(record).items():
                for epoch, value in curve:
                    points.setdefault(name, {}).setdefault(epoch, []).append(value)
    return {
        name: [(epoch, math.fsum(values) / len(values)) for epoch, values in sorted(by_epoch.items())]
        for name, by_epoch in points.items()
    }
