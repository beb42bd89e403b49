"""What MLflow should hold of a study, worked out from the ledger alone.

Nothing here knows MLflow: a run is plain names and values, so that the view can be compared, replayed and tested.
Metrics have the names of ``trials.parquet``. Curves are ``epoch/<split>_<name>``, one value per epoch from epoch 1, and
``during/<estimate>``, at the epochs after which it was measured. They are for people to see: values that are not finite are
left out. Each run also holds the ledger's own lines, packed into tags, so that a study can be read back bit for bit.
"""

import base64
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.trials.records import slot
from search_spaces import Spec
from study.errors import UserError
from study.results.ledger import Contents, encode
from study.schema import STATES, MeasureRecord, Record, ReplicateRecord

STUDY_PHASE, SUMMARY_PHASE = "study", "summary"
# of what a summary says: one that says something else is written anew
DIGEST = "mlflow.fmm_summary"
_TAGGED = ("cell", "phase", "block", "replicate", "number", "trial_key", "state")
_REASON_CHARS = 500
# in names of metrics
_FORBIDDEN = re.compile(r"[^/\w.\- :]")
_PACKED = "mlflow.fmm_study.{:03d}"
# MLflow cuts a tag in silence beyond 8,000 characters; a multiple of four, so that each part is base64 by itself
_PART_CHARS = 7600
# Bytes that all tags of a study may unpack to: so many, and for each of their characters some more. Two megabytes can be
# made that unpack to gigabytes.
MOST_UNPACKED, MOST_RATIO = 2**26, 50


@dataclass(frozen=True, kw_only=True)
class WantedRun:
    """One run. ``status`` is MLflow's; ``seconds`` its duration; ``metrics`` are final values, all finite.

    ``figures``: makes files by name, asked only where the run is written.
    """

    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    figures: Callable[[], Mapping[str, bytes]] | None = None

    @property
    def latest(self) -> dict[str, float]:
        """The value that MLflow shows for each metric: the final one, or the last of a curve."""
        return self.metrics | {name: points[-1][1] for name, points in self.curves.items()}


def run_key(tags: Mapping[str, str]) -> str | None:
    """What tells a run from the others of its study: a replicate's key, or of which cell it is the summary."""
    return f"summary of {tags.get('cell')}" if tags.get("phase") == SUMMARY_PHASE else tags.get("trial_key")


class Wanted:
    """The runs that a ledger asks for. ``contents`` is copied; later records are added."""

    def __init__(self, spec: Spec, contents: Contents) -> None:
        self.spec = spec
        self._contents = Contents()
        self._current: dict[tuple[Any, ...], str] = {}
        self._measures: dict[str, dict[str, MeasureRecord]] = {}
        datasets = {value for grid in spec.factors for value in grid.get("dataset", [])}
        self._many_datasets = len(datasets) > 1
        records: list[Record] = [*contents.replicates.values(), *contents.measures.values()]
        for record in records:
            self.add(record)

    def add(self, record: Record) -> list[str]:
        """Take in a record; returns the trial keys of the runs that it changes."""
        key = record["trial_key"]
        if not self._contents.add(record) or key not in self._contents.replicates:
            return []
        if record["kind"] == "measure":
            self._measures.setdefault(key, {})[record["measure_key"]] = record
            return [key]
        before = self._current.get(slot(record), key)
        self._current[slot(record)] = key
        return list(dict.fromkeys((before, key)))

    def trial_keys(self) -> list[str]:
        """Trial keys of all replicates, in order of writing."""
        return list(self._contents.replicates)

    def replicate(self, trial_key: str) -> WantedRun:
        """The child run of one replicate."""
        record = self._contents.replicates[trial_key]
        written = list(self._measures.get(trial_key, {}).values())
        # the last of each statistic, which may have been taken with other settings before
        measures = list({measure["statistic"]: measure for measure in written}.values())
        metrics = {**record["metrics"], "epochs": record["epochs"], "params": record["params"]}
        metrics |= {"flops": record["flops"], "train_seconds": record["train_seconds"]}
        if written:
            metrics["measure_seconds"] = sum(measure["measure_seconds"] for measure in written)
        for measure in measures:
            for name, estimate in measure["estimates"].items():
                metrics |= {name: estimate["value"], f"{name}_stderr": estimate["stderr"]}
        # what claims are about first: the compare page opens on the first metric
        first = [name for name in outcomes(self.spec) if name in metrics]
        return WantedRun(
            name=self.name(record),
            status="FAILED" if record["state"] == "failed" else "FINISHED",
            params=as_params({"cell": record["cell"], **record["config"]}),
            tags=self._tags(record, measures) | pack(self.lines(trial_key)),
            metrics=finite({name: metrics[name] for name in (*first, *metrics)}),
            curves=curves_of(record),
            seconds=record["train_seconds"],
        )

    def lines(self, trial_key: str) -> bytes:
        """The ledger's lines of one replicate and its measurements, as the ledger writes them."""
        records: list[Record] = [self._contents.replicates[trial_key], *self._measures.get(trial_key, {}).values()]
        return b"".join(map(encode, records))

    def label(self, record: ReplicateRecord) -> str:
        """The short name of its cell: the dataset is named where there is more than one."""
        dataset = "" if self._many_datasets else f"{record['config'].get('dataset')}/"
        return record["cell"].removeprefix(dataset)

    def name(self, record: ReplicateRecord) -> str:
        """``d8/add b3 confirm`` or ``d8/add/se.mul b0 #2``; the dataset is named where there is more than one."""
        label = self.label(record)
        if record["phase"] == "search":
            return f"{label} b{record['block']} #{record['number']}"
        index = f"b{record['block']}" if self.spec.blocks > 1 else f"r{record['replicate']}"
        return f"{label} {index} {record['phase']}" + (
            f" {record['config']['epochs']} epochs" if record["phase"] == "short" else ""
        )

    def block(self) -> list[str]:
        """Trial keys of confirmed replicates, one per cell, of the first of the fullest blocks."""
        blocks: dict[int, dict[str, str]] = {}
        for (cell, phase, block, *_), key in self._current.items():
            if phase == "confirm":
                blocks.setdefault(block, {}).setdefault(cell, key)
        fullest = max(sorted(blocks), key=lambda block: len(blocks[block]), default=None)
        return [] if fullest is None else list(blocks[fullest].values())

    def study(
        self,
        headlines: Mapping[str, float],
        provenance: Mapping[str, str],
        sessions: Sequence[Mapping[str, Any]] = (),
        registration: Mapping[str, Any] | None = None,
    ) -> WantedRun:
        """The parent run. Parameters are what a study freezes; what may grow (blocks, cells, trials) are tags.

        ``provenance``: tags of the last of ``sessions``. The ``sessions`` and the ``registration`` of claims are packed whole
        beside the specification.
        """
        spec = self.spec
        frozen = {"seed": spec.seed, **spec.fixed, "sampler": spec.sampler.name, "scheduler": spec.scheduler.name}
        frozen |= {"replicates": spec.replicates, "group": spec.resources.group, "threads": spec.resources.threads}
        growing = {
            "blocks": spec.blocks,
            "cells": len(list(spec.cells())),
            "search_trials": spec.budget.search_trials,
            "factors": ", ".join(spec.factor_names()),
            "nuisance": ", ".join(spec.nuisance),
            "statistics": ", ".join(spec.measure.statistics),
            "claims": ", ".join(sorted(spec.all_claims)),
            "alpha": spec.alpha,
        }
        held = {"spec": spec.model_dump(mode="json"), "sessions": list(sessions), "registration": registration}
        return WantedRun(
            name=spec.name,
            status="FINISHED",
            params=as_params(frozen),
            tags={
                "phase": STUDY_PHASE,
                "study": spec.name,
                "mlflow.note.content": spec.title,
                **provenance,
                **{name: str(value) for name, value in growing.items()},
                **pack(json.dumps(held).encode()),
            },
            metrics=finite(
                {
                    **headlines,
                    **self.counts(),
                }
            ),
        )

    def counts(self) -> dict[str, float]:
        """How much of the ledger there is, as metrics of the study's run: two ledgers that differ differ here."""
        records, measures = self._contents.replicates.values(), self._contents.measures.values()
        states = Counter(record["state"] for record in records)
        return finite(
            {
                "num_replicates": len(records),
                **{f"num_{state}": states[state] for state in STATES},
                "num_measurements": len(measures),
                "train_seconds": sum(record["train_seconds"] for record in records),
                "measure_seconds": sum(measure["measure_seconds"] for measure in measures),
            }
        )

    def _tags(self, record: ReplicateRecord, measures: list[MeasureRecord]) -> dict[str, str]:
        tags = {name: str(value) for name, value in record.items() if name in _TAGGED}
        tags |= {"study": self.spec.name, "label": self.label(record)}
        tags["superseded"] = "no" if self._current[slot(record)] == record["trial_key"] else "yes"
        estimates = {name: e for measure in measures for name, e in measure["estimates"].items()}
        optional = {
            "reason": record["reason"].strip()[-_REASON_CHARS:],
            "boundary": ", ".join(record["boundary"]),
            "defaulted": "yes" if record["defaulted"] else "",
            "not_converged": ", ".join(name for name, e in estimates.items() if not e["converged"]),
            "measure_error": "; ".join(f"{m['statistic']}: {m['error'].strip()}" for m in measures if m["error"]),
        }
        # an empty tag takes back what an earlier attempt said
        return tags | optional


def headlines(effects: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Main effects as metrics, from rows of the effects table: those of claims, and the control's on test accuracy.

    ``effect/C4 mul-add test accuracy`` is in the outcome's unit; ``... low`` and ``... high`` are its interval. A contrast
    without a mean difference (no pair has the outcome) has no metric.
    """
    found: dict[str, float] = {}
    rows = [row for row in effects if row["stratum"] == "all" and row["mean_difference"] is not None]
    datasets = {row["dataset"] for row in rows}
    for row in rows:
        control = row["role"] == "control" and row["outcome"] == "test/accuracy"
        if row["role"] != "primary" and not control:
            continue
        name = f"effect/{row['claim'] or 'A-A'} {_levels(row['arm'])}-{_levels(row['reference'])} "
        name += row["outcome"].replace("/", " ") + (f" {row['dataset']}" if len(datasets) > 1 else "")
        found[name] = row["mean_difference"]
        for end in ("low", "high"):
            if row[f"ci_{end}"] is not None:
                found[f"{name} {end}"] = row[f"ci_{end}"]
    return found


def _levels(label: str) -> str:
    """``mul`` for ``merge=mul``."""
    return " ".join(part.partition("=")[2] or part for part in label.split())


def outcomes(spec: Spec) -> list[str]:
    """The metrics to see first: test accuracy, then what claims are about."""
    levels = [claim.outcome for claim in spec.level_claims.values()]
    return list(dict.fromkeys(["test/accuracy", *spec.claimed_outcomes, *levels]))


def as_params(values: Mapping[str, Any]) -> dict[str, str]:
    """A run's parameters."""
    # a stop curve is as long as the training and of no use in a table
    return {name: str(value) for name, value in values.items() if name != "stop_curve"}


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Finite values alone, for MLflow's stores turn NaN into 0 and Inf into a huge number; names as MLflow takes them."""
    return {_FORBIDDEN.sub("_", name): float(value) for name, value in values.items() if math.isfinite(value)}


def curves_of(record: ReplicateRecord) -> dict[str, list[tuple[int, float]]]:
    """Points (epoch, value) by name, of every epoch and of what was measured in mid-training."""
    points = [
        (f"epoch/{name.replace('/', '_')}", epoch, value)
        for name, values in record["curves"].items()
        for epoch, value in enumerate(values, 1)
    ]
    points += [
        (f"during/{name}", point["epoch"], estimate["value"])
        for point in record.get("trajectory", [])
        for name, estimate in point["estimates"].items()
    ]
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, epoch, value in points:
        if math.isfinite(value):
            curves.setdefault(_FORBIDDEN.sub("_", name), []).append((epoch, value))
    return curves


def pack(data: bytes) -> dict[str, str]:
    """Tags of an MLflow run that hold ``data`` exactly: zlib, base64, in parts as long as a tag may be.

    MLflow's own pages do not show names with the prefix ``mlflow.``. Tags rather than artifacts: a search returns them with
    its runs, a thousand per request, and they need no file store that the reader can reach.
    """
    text = base64.b64encode(zlib.compress(data)).decode()
    parts = [text[i : i + _PART_CHARS] for i in range(0, len(text), _PART_CHARS)]
    return {_PACKED.format(i): part for i, part in enumerate(parts)}


def unpack(tags: Mapping[str, str], most: int = MOST_UNPACKED) -> bytes | None:
    """What ``pack`` was given; ``None`` if parts are missing or, by zlib's checksum, do not belong together.

    Further parts, left from longer data, are not read. Raises ``UserError`` for data of more than ``most`` bytes, of which
    only so many are unpacked.
    """
    stream, data = zlib.decompressobj(), bytearray()
    try:
        for i in range(len(tags)):
            if stream.eof:
                break
            part = base64.b64decode(tags[_PACKED.format(i)], validate=True)
            data += stream.decompress(part, most + 1 - len(data))
            if len(data) > most:
                raise UserError(f"tags that unpack to more than {most:,} bytes: they are none of fmm-study's")
    except UserError:
        raise
    except (KeyError, ValueError, zlib.error):
        return None
    return bytes(data) if stream.eof else None


def packed_size(tags: Mapping[str, str]) -> int:
    """How many characters of ``tags`` hold what was packed."""
    return sum(len(text) for name, text in tags.items() if name.startswith(_PACKED.partition("{")[0]))
