"""Train and measure one group of replicates: the only place where model, data, training and smoothness meet.

No ray, no mlflow: a group reports through the records it yields. Members run one after another, or train together first
(``study.worker.ahead``), or each in several processes (``study.worker.rank_launcher``); one that fails, diverges, is
pruned or kills its worker
leaves the others alone. A member's folder ``checkpoints/<trial_key>`` holds ``state.pt`` while it trains, ``outcome.json``
once it is finished until the driver has its records, and ``final.pt`` or ``best.pt`` where kept.
"""

import base64
import functools
import itertools
import json
import math
import socket
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from study.atomic import read_json, write_text
from study.config import TrialConfig
from study.data import Dataset, Splits, load_dataset, split
from study.errors import StorageError, UserError
from study.measuring.replicate import look_of, measure_replicate, unmeasured
from study.models import build_network, num_flops, num_params
from study.results.files import BEST, CHECKPOINTS, FINAL, OUTCOME, STATE, checkpoint_folder
from study.schema import Record, ReplicateRecord, State
from study.smoothness import reestimated_batchnorm
from study.task import Task
from study.training import Progress, Trained, evaluate, load_checkpoint, save_checkpoint, train
from study.training.backend import set_backend
from study.training.evaluate import EVALUATION_BATCH
from study.worker.ahead import train_ahead
from study.worker.attempts import MAX_LOSSES, REASON, Attempts
from study.worker.rank_launcher import train_in_ranks

# Splits of so many blocks stay on the device between the trials of an actor.
SPLITS_KEPT = 8

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

    ``storage`` is the study's folder, shared by all workers; ``plugins`` are what processes of its own have to import.
    ``driver`` names who asks: a member that has cost the same driver several workers in a row has failed (``None``: nobody
    has asked before). Raises nothing for a member's fault: that is a ``failed`` record with its reason. Raises
    ``StorageError`` where ``storage`` cannot be written, which is no member's fault.
    """
    set_backend(threads)
    attempts = Attempts(driver or uuid.uuid4().hex)
    yield from train_ahead(tasks, storage, torch.device(device), _splits, attempts)
    for task in tasks:
        folder = checkpoint_folder(storage, task.config.trial_key)
        if attempts.begin(folder) > MAX_LOSSES:
            attempts.forget([folder])
            yield _lost(task, folder)
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
    """Trial key and records of every finished member that no driver has taken; a damaged hand-over has no records."""
    for path in sorted(storage.glob(f"{CHECKPOINTS}/*/{OUTCOME}")):
        yield path.parent.name, _handed_over(path)


def _handed_over(outcome: Path) -> list[Record]:
    try:
        records: list[Record] = read_json(outcome) or []
    except UserError:
        # what was in it is had again, from ``final.pt`` or by training
        records = []
    return records


def discard_outcome(storage: Path, trial_key: str) -> None:
    """Called by the driver once the ledger holds a member's records: its hand-over file is no longer needed."""
    folder = checkpoint_folder(storage, trial_key)
    # and what workers killed in mid-write have left (``study.atomic``)
    for path in (folder / OUTCOME, *folder.glob(".*")):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _member(task: Task, folder: Path, device: torch.device, storage: Path) -> Iterator[Event]:
    outcome = folder / OUTCOME
    if finished := _handed_over(outcome):
        (folder / STATE).unlink(missing_ok=True)
        yield finished
        return
    config = task.config
    dataset = load_dataset(config.dataset)
    splits = _splits(config.dataset, config.split_seed, str(device))
    model = build_network(config, num_classes=dataset.num_classes, mean=dataset.mean, deviation=dataset.deviation).to(
        device
    )
    kept = load_checkpoint(folder / FINAL)
    if kept is not None:
        # trained before: only measurements are missing, and maybe its record, if a crash came before the ledger had it
        model.load_state_dict(kept["model"])
        record = kept["record"]
    else:
        trained = None
        look = look_of(task, splits, dataset.num_classes, model)
        for event in train(model, splits.train, splits.val, config, folder / STATE, look):
            if isinstance(event, Progress):
                yield event
            else:
                trained = event
        assert trained is not None  # train's last event
        record = _finish(task, dataset, splits, model, trained)
        _keep(task, folder, model, trained, record)
    records: list[Record] = [record]
    if record["state"] in ("completed", "collapsed"):
        records += measure_replicate(task, splits, dataset.num_classes, model, storage)
    write_text(outcome, json.dumps(records))
    (folder / STATE).unlink(missing_ok=True)
    yield records


@functools.lru_cache(maxsize=SPLITS_KEPT)
def _splits(dataset: str, split_seed: int, device: str) -> Splits:
    """The splits of a block on the device, kept warm between the trials of an actor."""
    found, where = split(load_dataset(dataset), split_seed), torch.device(device)
    return Splits(train=found.train.to(where), val=found.val.to(where), test=found.test.to(where))


def _finish(task: Task, dataset: Dataset, splits: Splits, model: nn.Module, trained: Trained) -> ReplicateRecord:
    """Final, best-epoch and re-estimated metrics, and the outcome. Leaves ``model`` at its final weights."""
    config = task.config
    # of training data that does not fit in memory, a fixed subset: a pass of it costs as much as an epoch's reading
    held = splits.train.held()
    seen = {"train": held, "val": splits.val}
    if task.phase != "search":
        seen["test"] = splits.test

    def metrics(suffix: str, correct: list[bool] | None = None) -> dict[str, float]:
        found = {
            name: evaluate(model, part.batches(EVALUATION_BATCH), into=correct if name == "test" else None)
            for name, part in seen.items()
        }
        return {f"{part}/{name}{suffix}": value for part, values in found.items() for name, value in values.items()}

    correct: list[bool] = []
    measured = metrics("", correct)
    if task.phase != "search" and trained.stopped != "diverged":
        with reestimated_batchnorm(model, held.pixels(), config.batch_size):
            measured |= metrics("_bn_reestimated")
    if trained.best and trained.best_epoch == trained.epoch:
        # the same weights: what has been measured of them
        measured |= {
            f"{part}/{name}_best": measured[f"{part}/{name}"] for part in seen for name in ("accuracy", "loss")
        }
    elif trained.best:
        final = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(trained.best)
        measured |= metrics("_best")
        model.load_state_dict(final)
    state: State = "completed"
    if trained.stopped == "diverged":
        state = "diverged"
    elif trained.stopped == "pruned":
        state = "pruned"
    elif measured["val/accuracy"] < dataset.accuracy_floor:
        state = "collapsed"
    return _record(
        task,
        state=state,
        metrics={name: value for name, value in measured.items() if math.isfinite(value)},
        curves=trained.curves,
        epochs=trained.epoch,
        params=num_params(model),
        flops=num_flops(model, dataset.image_shape),
        train_seconds=trained.train_seconds,
        resumed_from=trained.resumed_from,
        trajectory=trained.trajectory,
        test_correct=base64.b64encode(np.packbits(np.array(correct, dtype=np.bool_)).tobytes()).decode(),
        num_test=len(correct),
    )


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
        **{**empty, **values},  # type: ignore[typeddict-item]
    }
    return record


def _lost(task: Task, folder: Path) -> list[Record]:
    """The records of a member that has killed its workers: if it was trained, by what was to be measured."""
    kept = load_checkpoint(folder / FINAL)
    if kept is None:
        return [_record(task, state="failed", reason=REASON)]
    return [kept["record"], *unmeasured(task, REASON)]


def _keep(task: Task, folder: Path, model: nn.Module, trained: Trained, record: ReplicateRecord) -> None:
    """Keep the weights that the study asks for, with the settings that rebuild the network and the record of training."""
    if task.phase == "search" or task.checkpoints == "none" or trained.stopped == "diverged":
        return
    if task.checkpoints == "best":
        save_checkpoint(_kept(task.config, trained.best, record), folder / BEST)
    # last, for a member with a final.pt is not trained again
    save_checkpoint(_kept(task.config, model.state_dict(), record), folder / FINAL)


def _kept(config: TrialConfig, weights: Mapping[str, Tensor], record: ReplicateRecord) -> dict[str, Any]:
    return {"model": dict(weights), "config": config.as_dict(), "record": dict(record)}
