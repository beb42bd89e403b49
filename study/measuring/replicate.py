"""https://arxiv.org/abs/2106.15067: the statistics on a replicate's network, after its training and in the middle of it.

Batch norm is re-estimated first; a statistic's fault is its own: the replicate and the other statistics stand. Tables that
a statistic keeps, and single values where they are asked for, are written before the record that names them.
"""

import dataclasses
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from study.config import TrialConfig
from study.data import Splits
from study.data.parts import Split
from study.errors import StorageError, UserError
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
from study.task import Task
from study.training import Look

# Batch norm is re-estimated on no more training images than this in the middle of training: a pass of all of them would
# cost a third of an epoch.
_IMAGES_DURING = 2048


def measure_replicate(
    task: Task, splits: Splits, num_classes: int, model: nn.Module, root: Path
) -> list[MeasureRecord]:
    """Every statistic of ``task``, on the final weights with batch norm re-estimated on the training split.

    ``root`` is the study's folder, where tables are kept. Raises ``StorageError`` where it cannot be written.
    """
    if not task.statistics:
        return []
    # of data that does not fit in memory, a fixed subset
    parts = {"train": splits.train.held(), "val": splits.val.held(), "test": splits.test.held()}
    try:
        with _context(task.config, parts, num_classes, model) as context:
            found = {name: _record(task, name, context, root) for name in in_turn(task.statistics)}
            return [found[name] for name in task.statistics]
    except StorageError:
        raise
    except UserError as error:
        return unmeasured(task, str(error))


def unmeasured(task: Task, error: str) -> list[MeasureRecord]:
    """Records of what ``task`` was to measure and, for the reason in ``error``, could not."""
    return [_measured(task, name, error=error) for name in task.statistics]


def look_of(task: Task, splits: Splits, num_classes: int, model: nn.Module) -> Look | None:
    """What training is to measure in its middle; ``None`` where ``task`` asks for nothing."""
    if not task.during:
        return None
    return Look(every=task.every, take=lambda: measure_during(task, splits, num_classes, model))


def measure_during(task: Task, splits: Splits, num_classes: int, model: nn.Module) -> dict[str, EstimateRecord]:
    """The statistics that ``task`` asks for in the middle of training, on validation images; the model is left as found.

    Those that cannot be had of these weights are left out.
    """
    train = splits.train.held()
    few = slice(0, _IMAGES_DURING)
    parts = {"train": dataclasses.replace(train, images=train.images[few], labels=train.labels[few])}
    parts["val"] = splits.val.held()
    found: dict[str, EstimateRecord] = {}
    try:
        with _context(task.config, parts, num_classes, model) as context:
            for name in in_turn(task.during):
                estimates, _ = estimates_of(name, task.during[name], context)
                found |= {key: estimate.as_record() for key, estimate in estimates.items()}
    except UserError:
        # outputs that are not finite: training itself will say so
        return {}
    return found


@contextmanager
def measuring(
    model: nn.Module, parts: Mapping[str, Split], num_classes: int, *, seed: int, batch_size: int
) -> Iterator[MeasureContext]:
    """What statistics are given: batch norm is re-estimated on ``parts["train"]`` for the while. Raises ``UserError``."""
    pixels = {name: part.pixels() for name, part in parts.items()}
    with reestimated_batchnorm(model, pixels["train"], batch_size):
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
            context.shared.clear()  # whoever keeps the context, as a traceback may


def _context(
    config: TrialConfig, parts: Mapping[str, Split], num_classes: int, model: nn.Module
) -> AbstractContextManager[MeasureContext]:
    return measuring(model, parts, num_classes, seed=config.seed, batch_size=config.batch_size)


def _record(task: Task, name: str, context: MeasureContext, root: Path) -> MeasureRecord:
    started, given = time.perf_counter(), task.statistics[name]
    own = dataclasses.replace(context, kept={})
    estimates, error = estimates_of(name, given, own)
    tables = {table: _table(columns) for table, columns in own.kept.items()}
    if name in task.keep_samples:
        tables[SAMPLES] = _samples(estimates)
    kept = write_kept(root, task.config.trial_key, _key(task, name), tables)
    seconds = time.perf_counter() - started
    return _measured(task, name, estimates=estimates, error=error, seconds=seconds, kept=kept)


def estimates_of(name: str, given: Mapping[str, Any], context: MeasureContext) -> tuple[Mapping[str, Estimate], str]:
    """A statistic's estimates, and why some or all are missing; raises nothing."""
    try:
        return measure(name, parse_settings(name, given), context), ""
    except UserError as fault:
        return getattr(fault, "estimates", {}), str(fault)
    except Exception:  # noqa: BLE001  all that a statistic raises: it is recorded as its error, and the others stand
        return {}, traceback.format_exc(limit=-3).strip()


def _table(columns: Mapping[str, torch.Tensor]) -> pa.Table:
    return pa.table({name: column.numpy() for name, column in columns.items()})


def _samples(estimates: Mapping[str, Estimate]) -> pa.Table:
    """One row an estimate and single value behind it, in the order in which they were measured."""
    held = {name: estimate.samples for name, estimate in estimates.items() if estimate.samples is not None}
    names = [name for name, values in held.items() for _ in range(len(values))]
    values = torch.cat([torch.zeros(0, dtype=torch.float64), *(values.cpu() for values in held.values())])
    index = torch.cat([torch.zeros(0, dtype=torch.int64), *(torch.arange(len(values)) for values in held.values())])
    return pa.table(
        {
            "estimate": pa.array(names, pa.string()).dictionary_encode(),
            "sample": index.numpy(),
            "value": values.numpy(),
        }
    )


def _key(task: Task, name: str) -> str:
    return statistic_key(task.config.trial_key, name, task.statistics[name], samples=name in task.keep_samples)


def _measured(
    task: Task,
    name: str,
    *,
    error: str,
    estimates: Mapping[str, Estimate] | None = None,
    seconds: float = 0.0,
    kept: list[str] | None = None,
) -> MeasureRecord:
    return {
        "kind": "measure",
        "trial_key": task.config.trial_key,
        "measure_key": _key(task, name),
        "statistic": name,
        "estimates": {key: estimate.as_record() for key, estimate in (estimates or {}).items()},
        "measure_seconds": seconds,
        "error": error,
        "kept": kept or [],
    }
