"""The statistics on a replicate's network: after its training, and in mid-training.

Batch norm is re-estimated first. A statistic's fault is its own: the replicate and the other statistics stand. Tables that a
statistic keeps, and single values where requested, are written before the record that names them.
"""

import dataclasses
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from study.atomic import checksum_of
from study.config import Task
from study.data import Splits
from study.data.parts import Pixels, Split
from study.errors import StorageError, UserError
from study.registry import revised_parts
from study.results.files import kept_path
from study.results.kept_tables import SAMPLES, write_kept
from study.schema import EstimateRecord, MeasureRecord
from study.smoothness import (
    Estimate,
    MeasureContext,
    in_turn,
    measure,
    parse_settings,
    reestimated_batchnorm,
    statistic_key,
)
from study.training import MidTraining

# At most this many training images re-estimate batch norm in mid-training: all of them would cost a third of an epoch.
_IMAGES_IN_MID_TRAINING = 2048


def measure_replicate(
    task: Task,
    splits: Splits,
    num_classes: int,
    model: nn.Module,
    root: Path,
    known: Mapping[str, torch.Tensor] | None = None,
) -> list[MeasureRecord]:
    """Each statistic of ``task`` on the final weights; tables go to ``root``, the study's folder. Raises ``StorageError``.

    ``known``: batch norm's statistics of these weights, where they are re-estimated already (``reestimated_batchnorm``).
    """
    if not task.statistics:
        return []
    parts = {"train": splits.train.held(), "val": splits.val.held(), "test": splits.test.held()}
    try:
        with measure_context(model, parts, num_classes, task.config.seed, task.config.batch_size, known) as context:
            found = {name: _record(task, name, context, root) for name in in_turn(task.statistics)}
            return [found[name] for name in task.statistics]
    except StorageError:
        raise
    except UserError as error:
        return unmeasured_records(task, str(error))


def mid_training(task: Task, splits: Splits, num_classes: int, model: nn.Module) -> MidTraining | None:
    """What training measures before its end; ``None`` if ``task`` asks for nothing."""
    if not task.during:
        return None
    return MidTraining(every=task.every, measure=lambda: measure_during(task, splits, num_classes, model))


def measure_during(task: Task, splits: Splits, num_classes: int, model: nn.Module) -> dict[str, EstimateRecord]:
    """The statistics of ``task.during``, on validation images; the model is left as found. What fails is left out."""
    train = splits.train.held()
    parts = {"train": train.take(np.arange(min(len(train), _IMAGES_IN_MID_TRAINING))), "val": splits.val.held()}
    found: dict[str, EstimateRecord] = {}
    try:
        with measure_context(model, parts, num_classes, task.config.seed, task.config.batch_size) as context:
            for name in in_turn(task.during):
                estimates, _ = estimates_of(name, task.during[name], context)
                found |= {key: estimate.as_record() for key, estimate in estimates.items()}
    except UserError:
        return {}  # outputs that are not finite: training itself reports them
    return found


@contextmanager
def measure_context(
    model: nn.Module,
    parts: Mapping[str, Split],
    num_classes: int,
    seed: int,
    batch_size: int,
    known: Mapping[str, torch.Tensor] | None = None,
) -> Iterator[MeasureContext]:
    """The statistics' context; meanwhile batch norm is re-estimated on ``parts["train"]``, or is as ``known``.

    Raises ``UserError``.
    """
    pixels = {name: Pixels(part) for name, part in parts.items()}
    with reestimated_batchnorm(model, pixels["train"], batch_size, known):
        context = MeasureContext.calibrated(
            model=model,
            images=pixels,
            labels={name: part.labels for name, part in parts.items()},
            num_classes=num_classes,
            seed=seed,
        )
        try:
            yield context
        finally:
            context.shared.clear()  # a traceback may hold on to the context


def estimates_of(name: str, given: Mapping[str, Any], context: MeasureContext) -> tuple[Mapping[str, Estimate], str]:
    """A statistic's estimates, and why some or all are missing; raises nothing."""
    try:
        return measure(name, parse_settings(name, given), context), ""
    except UserError as fault:
        return getattr(fault, "estimates", {}), str(fault)
    except Exception:  # noqa: BLE001  recorded as the statistic's error; the others stand
        return {}, traceback.format_exc(limit=-3).strip()


def _record(task: Task, name: str, context: MeasureContext, root: Path) -> MeasureRecord:
    started, own = time.perf_counter(), dataclasses.replace(context, kept={})
    estimates, error = estimates_of(name, task.statistics[name], own)
    record = _empty_record(task, name, error)
    tables = {
        table: pa.table({key: column.numpy() for key, column in kept.items()}) for table, kept in own.kept.items()
    }
    if name in task.keep_samples:
        tables[SAMPLES] = _samples(estimates)
    record["estimates"] = {key: estimate.as_record() for key, estimate in estimates.items()}
    trial_key, own_key = task.config.trial_key, record["measure_key"]
    record["kept"] = write_kept(root, trial_key, own_key, tables)
    if tables:
        paths = {table: kept_path(root, trial_key, own_key, table) for table in tables}
        record["kept_checksums"] = {table: checksum_of(path) for table, path in paths.items()}
    record["measure_seconds"] = time.perf_counter() - started
    return record


def unmeasured_records(task: Task, error: str) -> list[MeasureRecord]:
    """Records of the statistics of ``task``, none of which could be measured, for the reason in ``error``."""
    return [_empty_record(task, name, error) for name in task.statistics]


def _empty_record(task: Task, name: str, error: str) -> MeasureRecord:
    trial_key, parts = task.config.trial_key, revised_parts(task.config.as_dict())
    sampled = name in task.keep_samples
    return {
        "kind": "measure",
        "trial_key": trial_key,
        "measure_key": statistic_key(trial_key, name, task.statistics[name], samples=sampled, parts=parts),
        "statistic": name,
        "estimates": {},
        "measure_seconds": 0.0,
        "error": error,
        "kept": [],
        "revisions": parts,
    }


def _samples(estimates: Mapping[str, Estimate]) -> pa.Table:
    """One row per estimate and single value behind it, in the order of measurement."""
    held = {name: estimate.samples for name, estimate in estimates.items() if estimate.samples is not None}
    names = [name for name, values in held.items() for _ in range(len(values))]
    values = torch.cat([torch.zeros(0, dtype=torch.float64), *(values.cpu() for values in held.values())])
    index = torch.cat([torch.zeros(0, dtype=torch.int64), *(torch.arange(len(values)) for values in held.values())])
    return pa.table(
        {"estimate": pa.array(names, pa.string()).dictionary_encode(), "sample": index.numpy(), "value": values.numpy()}
    )
