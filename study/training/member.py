"""One replicate in training: network, optimiser and data, what it has reached, the end of an epoch, and its checkpoint."""

import copy
import math
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from study.atomic import check_archive, replacing
from study.config import TrialConfig
from study.schema import EstimateRecord, TrajectoryPoint
from study.training.average import Average, exchange, follow
from study.training.optimizer import make_optimizer

# Training has diverged when its mean loss exceeds this many times the loss of uniform guessing.
EXPLOSION = 1000.0


@dataclass(frozen=True)
class Progress:
    """Reported after each epoch."""

    epoch: int
    epochs: int
    val_loss: float


@dataclass(frozen=True)
class MidTraining:
    """A measurement after every ``every`` epochs and after the last one; ``measure`` leaves the model as it was."""

    every: int
    measure: Callable[[], dict[str, EstimateRecord]]


@dataclass
class Trained:
    """A replicate's training so far. ``curves`` has one value per epoch; ``best`` the weights of least validation loss.

    ``trajectory`` holds the measurements in mid-training; their time is not in ``train_seconds``. ``train/loss`` is the
    cross-entropy, of smoothed or mixed labels where these are trained on, without a penalty. ``stopped`` is ``diverged`` (NaN,
    Inf, exploding loss), ``pruned`` (worse than the stop curve) or empty.
    """

    curves: dict[str, list[float]] = field(default_factory=dict)
    epoch: int = 0
    stopped: Literal["", "diverged", "pruned"] = ""
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    train_seconds: float = 0.0
    resumed_from: int = 0
    trajectory: list[TrajectoryPoint] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class Member:
    """A replicate and its training state, resumed from ``checkpoint`` if that file exists.

    ``train_split`` gives ``labels`` and, in ``epoch``, augmented batches in a given order; ``val_split`` gives ``batches``.
    ``average`` is that of the weights; empty where none is kept, and before the first step.
    """

    model: nn.Module
    train_split: Any
    val_split: Any
    config: TrialConfig
    checkpoint: Path | None
    mid_training: MidTraining | None = None
    optimizer: torch.optim.Optimizer = field(init=False)
    trained: Trained = field(init=False)
    average: Average = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.trained = Trained()
        self.optimizer = make_optimizer(self.model, self.config)
        if self.checkpoint and (held := load_checkpoint(self.checkpoint, self._is_own)):
            held.pop("trial_key", None)
            self.model.load_state_dict(held.pop("model"))
            self.optimizer.load_state_dict(held.pop("optimizer"))
            device = next(self.model.parameters()).device
            self.average = {name: value.to(device) for name, value in held.pop("average", {}).items()}
            self.trained = Trained(**{"resumed_from": held["epoch"], **held})

    def _is_own(self, held: dict[str, Any]) -> bool:
        """Whether a checkpoint is of this replicate; one of an older version does not name it."""
        fields = {"model", "optimizer", *vars(Trained())} - {"resumed_from"}
        fields |= {"average"} if self.config.ema_decay else set()
        return fields <= held.keys() and held.get("trial_key", self.config.trial_key) == self.config.trial_key

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train."""
        return bool(self.trained.stopped) or self.trained.epoch >= self.config.epochs

    def follow_average(self) -> None:
        """After a step: take its weights into the average, where one is kept."""
        if self.config.ema_decay:
            self.average = follow(self.average, self.model, self.config.ema_decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Meanwhile the network has the averaged weights, where an average is kept."""
        exchange(self.average, self.model.state_dict())
        try:
            yield
        finally:
            exchange(self.average, self.model.state_dict())

    def take_average(self) -> None:
        """At the end of training: the averaged weights are the network's, where an average is kept."""
        exchange(self.average, self.model.state_dict())
        self.average = {}

    def finish_epoch(self, metrics: dict[str, float], seconds: float) -> None:
        """Record an epoch's ``metrics``: the curves, the best weights so far, whether training has stopped."""
        trained = self.trained
        for name, value in metrics.items():
            trained.curves.setdefault(name, []).append(value)
        val_loss, best = metrics["val/loss"], trained.curves["val/loss"][trained.best_epoch - 1]
        if math.isfinite(val_loss) and (not trained.best or val_loss < best):
            trained.best_epoch = trained.epoch + 1
            with self.averaged():
                trained.best = copy.deepcopy(self.model.state_dict())
        trained.stopped = self._stopped(metrics)
        trained.epoch += 1
        trained.train_seconds += seconds

    def measure_mid_training(self) -> None:
        """After ``finish_epoch``: measure, if it is due."""
        trained, due = self.trained, self.mid_training
        last = trained.epoch == self.config.epochs
        if due and trained.stopped != "diverged" and (last or trained.epoch % due.every == 0):
            started = time.perf_counter()
            with self.averaged():
                estimates = due.measure()
            seconds = time.perf_counter() - started
            trained.trajectory.append({"epoch": trained.epoch, "estimates": estimates, "seconds": seconds})

    def save(self, *, ahead: bool) -> Progress:
        """Write the checkpoint. ``ahead``: its reader at the end did not interrupt this training (``resumed_from``)."""
        if self.checkpoint:
            held = {"trial_key": self.config.trial_key, "model": self.model.state_dict()}
            held |= {"optimizer": self.optimizer.state_dict(), **vars(self.trained)}
            held |= {"average": self.average} if self.average else {}
            if not (ahead and self.ended):
                del held["resumed_from"]
            save_checkpoint(held, self.checkpoint)
        return Progress(self.trained.epoch, self.config.epochs, self.trained.curves["val/loss"][-1])

    def _stopped(self, metrics: dict[str, float]) -> Literal["", "diverged", "pruned"]:
        epoch, curve = self.trained.epoch, self.config.stop_curve
        num_classes = max(int(self.train_split.labels.max()) + 1, 2)
        loss, last = metrics["train/loss"], epoch + 1 == self.config.epochs
        exploded = not loss <= EXPLOSION * math.log(num_classes)  # NaN too
        if exploded or (last and not math.isfinite(metrics["val/loss"])):
            return "diverged"
        # not (a <= b): a NaN validation loss is worse than any curve
        if not last and epoch < len(curve) and not metrics["val/loss"] <= curve[epoch]:
            return "pruned"
        return ""


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` (tensors and plain values) to ``path``, atomically. Raises ``StorageError`` if it cannot be."""
    with replacing(path) as partial, partial.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(path: Path, is_own: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any] | None:
    """The state at ``path``, on the CPU, without running code; ``None`` for none.

    A damaged file is renamed, and is none; so is one that ``is_own`` refuses.
    """
    try:
        check_archive(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not is_own(state):
            raise ValueError("it is of another replicate")
    except FileNotFoundError:
        return None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        path.rename(path.with_suffix(f".damaged-{type(error).__name__}"))
        return None
    return state
