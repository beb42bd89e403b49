"""Train and measure one group of replicates: the only place where model, data, training and smoothness meet.

A group reports through the records it yields; it knows neither Ray nor MLflow. Members run one after another, or train
together first (``study.worker.ahead``), or each in several processes (``study.worker.rank_launcher``). A member that fails,
diverges, is pruned or kills its worker does not affect the others. Its folder ``checkpoints/<trial_key>`` holds ``state.pt``
while it trains, ``outcome.json`` from its end until the driver has its records, and ``final.pt`` or ``best.pt`` if kept.
"""

import base64
import itertools
import math
import socket
import traceback
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from study.atomic import read_json, write_json
from study.config import Task, TrialConfig
from study.data import Dataset, Splits, load_dataset
from study.data.dataset import unstated_floor
from study.data.parts import Pixels
from study.errors import StorageError, UserError
from study.measuring.replicate import measure_replicate, unmeasured_records
from study.models import num_flops, num_params
from study.registry import revised_parts
from study.results.files import BEST, CHECKPOINTS, FINAL, OUTCOME, STATE, checkpoint_folder
from study.results.ledger import record_fault
from study.schema import TRAINED, Record, ReplicateRecord, State
from study.smoothness import reestimated_batchnorm
from study.training import Member, Progress, evaluate, load_checkpoint, save_checkpoint, train
from study.training.fused import fused_with
from study.training.loop import EVALUATION_BATCH
from study.worker.ahead import member_of, set_backend, splits_on, train_ahead
from study.worker.attempts import MAX_LOSSES, REASON, Attempts
from study.worker.rank_launcher import train_in_ranks

Event = Progress | list[Record]


def run_group(
    tasks: Sequence[Task],
    storage: Path,
    *,
    device: str = "cpu",
    threads: int = 1,
    plugins: Sequence[str] = (),
    driver: str | None = None,
) -> Iterator[Event]:
    """Run the members of a group; yields progress, and each member's records as soon as it is finished.

    ``storage`` is the study's folder, shared by all workers; ``plugins`` are modules that rank processes import. ``driver``
    names the driver: a member that has cost it several workers in a row has failed (``None``: a driver of its own). A
    member's fault is a ``failed`` record with its reason. Raises ``StorageError`` if ``storage`` cannot be written.
    """
    set_backend(threads)
    attempts = Attempts(driver or uuid.uuid4().hex)
    yield from train_ahead(tasks, storage, torch.device(device), attempts)
    for task in tasks:
        folder = checkpoint_folder(storage, task.config.trial_key)
        if attempts.begin(folder) > MAX_LOSSES:
            attempts.forget([folder])
            if kept := _kept_weights(task, folder):  # trained: only measurements are lacking
                yield [kept["record"], *unmeasured_records(task, REASON)]
            else:
                yield [_record(task, state="failed", reason=REASON)]
            continue
        try:
            by_ranks: Iterator[Event] = iter(())
            if task.ranks > 1:
                by_ranks = train_in_ranks(task, folder, device=device, threads=threads, plugins=plugins)
            own = _member(task, folder, torch.device(device), storage)
            yield from attempts.followed([folder], itertools.chain(by_ranks, own))
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001  any fault of a member is its outcome, with the reason kept
            attempts.forget([folder])
            reason = error if isinstance(error, UserError) else traceback.format_exc(limit=-3).strip()
            yield [_record(task, state="failed", reason=str(reason))]


def outcomes(storage: Path) -> Iterator[tuple[str, list[Record]]]:
    """Trial key and records of each finished member that no driver has taken; what cannot be trusted has no records."""
    for path in sorted(storage.glob(f"{CHECKPOINTS}/*/{OUTCOME}")):
        yield path.parent.name, _handed_over(path, path.parent.name)


def _handed_over(outcome: Path, trial_key: str, asked: Mapping[str, Any] | None = None) -> list[Record]:
    """The records in a hand-over file; none, and a warning, unless all are of ``trial_key`` and its settings.

    ``asked``: fields of the replicate's record as the task has them. What is not taken is had again from ``final.pt`` or by
    training.
    """
    try:
        records: list[Record] = read_json(outcome, list[Any], needs_seal=True, finite=False) or []
        for record in records:
            if fault := record_fault(record):
                raise UserError(f"{outcome}: record{fault}")
            if record["trial_key"] != trial_key:
                raise UserError(f"{outcome} holds a record of {record['trial_key'][:80]!r}")
            if record["kind"] == "replicate":
                if TrialConfig.from_mapping(record["config"]).trial_key != trial_key:
                    raise UserError(f"{outcome}: the settings in it are of another replicate")
                for name, value in (asked or {}).items():
                    if record.get(name) != value:
                        raise UserError(f"{outcome}: {name} is {str(record.get(name))[:80]!r}, {value!r} was asked for")
    except UserError as error:
        warnings.warn(f"{error}; what it holds is not taken and is had again", stacklevel=2)
        return []
    return records


def discard_outcome(storage: Path, trial_key: str) -> None:
    """Called by the driver once the ledger holds a member's records: its hand-over file is no longer needed."""
    folder = checkpoint_folder(storage, trial_key)
    # with what workers killed in mid-write have left (``study.atomic``)
    for path in (folder / OUTCOME, *folder.glob(".*")):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _member(task: Task, folder: Path, device: torch.device, storage: Path) -> Iterator[Event]:
    asked = {name: getattr(task, name) for name in ("cell", "phase", "block", "replicate", "number")}
    if finished := _handed_over(folder / OUTCOME, task.config.trial_key, asked):
        (folder / STATE).unlink(missing_ok=True)
        yield finished
        return
    kept = _kept_weights(task, folder)
    if kept is not None:
        (folder / STATE).unlink(missing_ok=True)
    known: Mapping[str, torch.Tensor] | None = None
    member = member_of(task, folder, device)
    dataset = load_dataset(task.config.dataset)
    splits = splits_on(task.config.dataset, task.config.split_seed, str(device), task.config.validation)
    if kept is not None:
        # trained before: measurements are missing, and the record if a crash came before the ledger had it
        member.model.load_state_dict(kept["model"])
        record = kept["record"]
    else:
        yield from train(member)
        member.take_average()
        record, known = _finish(task, dataset, splits, member)
        _keep(task, folder, member, record)
    records: list[Record] = [record]
    if record["state"] in TRAINED:
        records += measure_replicate(task, splits, dataset.num_classes, member.model, storage, known)
    write_json(folder / OUTCOME, records, finite=False)
    (folder / STATE).unlink(missing_ok=True)
    yield records


def _kept_weights(task: Task, folder: Path) -> dict[str, Any] | None:
    """What ``final.pt`` holds; ``None`` where there is none of this replicate: one that cannot be trusted is renamed."""

    def is_own(kept: dict[str, Any]) -> bool:
        record: Any = kept.get("record")
        # an older file lacks settings that came later, which are at their defaults
        return not record_fault(record) and all(
            TrialConfig.from_mapping(held) == task.config for held in (kept.get("config") or {}, record["config"])
        )

    return load_checkpoint(folder / FINAL, is_own)


def _finish(
    task: Task, dataset: Dataset, splits: Splits, member: Member
) -> tuple[ReplicateRecord, dict[str, torch.Tensor] | None]:
    """Final, best-epoch and re-estimated metrics, and the outcome; the statistics of batch norm that were re-estimated.

    Leaves the model at its final weights. The same images are not passed twice for the same weights.
    """
    model, trained = member.model, member.trained
    # of training data that does not fit in memory, a fixed subset: reading all of it costs as much as an epoch
    held = splits.train.held()
    seen = {"train": held, "val": splits.val}
    if task.phase != "search":
        seen["test"] = splits.test

    def metrics(suffix: str, correct: list[bool] | None = None) -> dict[str, float]:
        found: dict[str, dict[str, float]] = {}
        for name, part in seen.items():
            # validated on the test images: they are both
            tested = correct if part is seen.get("test") else None
            same = [found[other] for other in found if seen[other] is part]
            found[name] = same[0] if same else evaluate(model, part.batches(EVALUATION_BATCH), into=tested)
        return {f"{part}/{name}{suffix}": value for part, values in found.items() for name, value in values.items()}

    correct: list[bool] = []
    known: dict[str, torch.Tensor] | None = None
    final = metrics("", correct)
    measured = dict(final)
    if task.phase != "search" and trained.stopped != "diverged":
        with reestimated_batchnorm(model, Pixels(held), task.config.batch_size) as known:
            measured |= (
                metrics("_bn_reestimated")
                if known
                else {f"{name}_bn_reestimated": value for name, value in final.items()}
            )
    if trained.best and trained.best_epoch == trained.epoch:
        measured |= {f"{name}_best": value for name, value in final.items()}  # the same weights
    elif trained.best:
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(trained.best)
        measured |= metrics("_best")
        model.load_state_dict(weights)
    floor = unstated_floor(dataset) if task.accuracy_floor is None else task.accuracy_floor
    state: State = trained.stopped or ("collapsed" if final["val/accuracy"] < floor else "completed")
    reached = f"validation {_share(final['val/accuracy'])} below the floor of {_share(floor)}"
    record = _record(
        task,
        state=state,
        reason=f"{reached} after {trained.epoch} epoch{'s' * (trained.epoch != 1)}" if state == "collapsed" else "",
        metrics={name: value for name, value in measured.items() if math.isfinite(value)},
        curves=trained.curves,
        epochs=trained.epoch,
        params=num_params(model),
        flops=_flops(task.config, model, dataset.image_shape),
        train_seconds=trained.train_seconds,
        resumed_from=trained.resumed_from,
        trajectory=trained.trajectory,
        test_correct=base64.b64encode(np.packbits(np.array(correct, dtype=np.bool_)).tobytes()).decode(),
        num_test=len(correct),
    )
    return record, known


def _share(value: float) -> str:
    """``.65``: two to four decimals, cut off, so that what is below a floor never reads as the floor."""
    whole, decimals = f"{math.floor(1e4 * value + 1e-6) / 1e4:.4f}".split(".")
    return f"{whole.lstrip('0')}.{decimals[:2]}{decimals[2:].rstrip('0')}"


def _record(task: Task, *, state: State, reason: str = "", **values: Any) -> ReplicateRecord:
    empty = {"metrics": {}, "curves": {}, "epochs": 0, "params": 0, "flops": 0, "train_seconds": 0.0, "resumed_from": 0}
    empty |= {"trajectory": [], "test_correct": "", "num_test": 0, "host": socket.gethostname()}
    record: ReplicateRecord = {
        "kind": "replicate",
        "trial_key": task.config.trial_key,
        "cell": task.cell,
        "phase": task.phase,
        "block": task.block,
        "replicate": task.replicate,
        "number": task.number,
        "config": task.config.as_dict(),
        "state": state,
        "reason": reason,
        "boundary": list(task.boundary),
        "defaulted": task.defaulted,
        "revisions": revised_parts(task.config.as_dict()),
        **{**empty, **values},  # type: ignore[typeddict-item]
    }
    return record


def _keep(task: Task, folder: Path, member: Member, record: ReplicateRecord) -> None:
    """Keep the weights that the study asks for, with the settings that rebuild the network and the training's record."""
    if task.phase == "search" or task.checkpoints == "none" or member.trained.stopped == "diverged":
        return
    beside = {"config": task.config.as_dict(), "record": dict(record)}
    if task.checkpoints == "best":
        save_checkpoint({"model": member.trained.best, **beside}, folder / BEST)
    # last, because a member with a final.pt is not trained again
    save_checkpoint({"model": dict(member.model.state_dict()), **beside}, folder / FINAL)


# FLOPs by what replicates that may train together have in common: network, data and batch.
_counted: dict[tuple[Any, ...], int] = {}


def _flops(config: TrialConfig, model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """FLOPs of ``model``; counting takes as long as a pass over the test images of a small one, so this worker keeps it."""
    key = fused_with(config)
    if key not in _counted:
        _counted[key] = num_flops(model, image_shape)
    return _counted[key]
