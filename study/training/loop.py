"""The training loop of one replicate: stochastic gradient descent, an epoch at a time, resumable after any epoch.

Nothing is drawn from global random state: the order of epoch e comes from hash(seed, "order", e), its augmentation from
hash(seed, "augment", e), what modules draw in step s from hash(seed, "masks", e, s), so a resumed training continues bit
for bit. The host waits for the device once an epoch.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import TrialConfig
from study.schema import EstimateRecord, TrajectoryPoint
from study.seeding import derive_seed
from study.training.checkpoint import load_checkpoint, save_checkpoint
from study.training.evaluate import EVALUATION_BATCH, evaluate
from study.training.light_sgd import LightSGD
from study.training.penalty import jacobian_penalty, unit_directions
from study.training.process_group import ALONE, Ranks
from study.training.schedule import learning_rate

# A mean training loss above this many times that of uniform guessing counts as an explosion.
EXPLOSION = 1000.0


@runtime_checkable
class DrawsEachStep(Protocol):
    """A module that draws anew for every training step (dropout masks), from the seed that it is told before the step.

    What is drawn is kept in buffers of the module itself that are not persistent: replicates that train together
    (``fused.py``) are given it there, and one by one where it is kept elsewhere.
    """

    def start_step(self, seed: int) -> None:
        """Draw what the next forward pass in training uses, from ``seed`` alone."""
        ...


@dataclass(frozen=True)
class Progress:
    """What is told after an epoch."""

    epoch: int
    epochs: int
    val_loss: float


@dataclass(frozen=True)
class Look:
    """What is measured after every ``every`` epochs, and after the last; ``take`` leaves the model as it was."""

    every: int
    take: Callable[[], dict[str, EstimateRecord]]


@dataclass
class Trained:
    """A replicate's training so far. ``curves`` has one value an epoch; ``best`` the weights of least validation loss.

    ``trajectory`` is what was measured in the middle of it, which is no part of ``train_seconds``. ``train/loss`` is the
    plain cross-entropy, whatever penalty is trained with.
    """

    curves: dict[str, list[float]] = field(default_factory=dict)
    epoch: int = 0
    stopped: str = ""
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    train_seconds: float = 0.0
    resumed_from: int = 0
    trajectory: list[TrajectoryPoint] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether training ended before its last epoch (diverged or pruned)."""
        return bool(self.stopped)


def train(
    model: nn.Module,
    train_split: Any,
    val_split: Any,
    config: TrialConfig,
    checkpoint: Path | None,
    look: Look | None = None,
) -> Iterator[Progress | Trained]:
    """Train ``model`` in place; yields a ``Progress`` an epoch and at the end the ``Trained``.

    ``train_split`` gives ``labels`` and, in ``epoch``, its batches in an order, augmented; ``val_split`` its ``batches``:
    all on the model's device. Raises ``UserError`` for an unknown augmentation. With a ``checkpoint`` path, training resumes
    from it and writes it after every epoch. ``stopped`` is ``diverged`` (NaN, Inf or an exploding loss in training) or
    ``pruned`` (worse than the stop curve).
    """
    optimizer = sgd(model, config)
    trained = resume(model, optimizer, checkpoint) if checkpoint else Trained()
    while trained.epoch < config.epochs and not trained.done:
        started = time.perf_counter()
        metrics = train_epoch(model, optimizer, train_split, config, trained.epoch)
        metrics |= validate(model, val_split)
        note_epoch(trained, metrics, model, train_split, config)
        trained.train_seconds += time.perf_counter() - started
        note_look(trained, look, config)
        if checkpoint:
            save_checkpoint(state(model, optimizer, trained), checkpoint)
        yield Progress(trained.epoch, config.epochs, metrics["val/loss"])
    yield trained


def validate(model: nn.Module, val_split: Any) -> dict[str, float]:
    """What an epoch ends with: ``evaluate`` on the validation part, halves too, as ``val/...``."""
    found = evaluate(model, val_split.batches(EVALUATION_BATCH), halves=True)
    return {f"val/{name}": value for name, value in found.items()}


def sgd(model: nn.Module, config: TrialConfig) -> torch.optim.SGD:
    """The optimiser of one replicate."""
    return LightSGD(model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def note_epoch(
    trained: Trained, metrics: dict[str, float], model: nn.Module, train_split: Any, config: TrialConfig
) -> None:
    """Add an epoch's ``metrics`` to ``trained``, with the weights where they are the best so far, and whether it goes on."""
    for name, value in metrics.items():
        trained.curves.setdefault(name, []).append(value)
    val_loss, best = metrics["val/loss"], trained.curves["val/loss"][trained.best_epoch - 1]
    if math.isfinite(val_loss) and (not trained.best or val_loss < best):
        trained.best_epoch = trained.epoch + 1
        trained.best = copy.deepcopy(model.state_dict())
    trained.stopped = _stop(metrics, trained.epoch, config, train_split)
    trained.epoch += 1


def note_look(trained: Trained, look: Look | None, config: TrialConfig) -> None:
    """Measure in the middle of training, where it is time to."""
    if look and trained.stopped != "diverged" and (trained.epoch % look.every == 0 or trained.epoch == config.epochs):
        started = time.perf_counter()
        estimates = look.take()
        seconds = time.perf_counter() - started
        trained.trajectory.append({"epoch": trained.epoch, "estimates": estimates, "seconds": seconds})


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """Indices (num_images,) of the images in the order of ``epoch``, on the CPU."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_images, generator=generator)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    split: Any,
    config: TrialConfig,
    epoch: int,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """One pass in batches of equal size (a short last one is left out; the next epoch's order differs).

    Of several ``ranks``, each sees its rows of every batch; the metrics are those of all.
    """
    batch = min(config.batch_size, len(split))
    steps = len(split) // batch
    sums = torch.stack(train_steps(model, optimizer, split, config, epoch, ranks))
    loss, correct = ranks.total(sums).tolist()
    return {"train/loss": loss / (steps * ranks.size), "train/accuracy": correct / (steps * batch)}


def train_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    split: Any,
    config: TrialConfig,
    epoch: int,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """The steps of ``train_epoch``: sum of the losses and number of correct images, on the device, which is not waited for."""
    model.train()
    batch = min(config.batch_size, len(split))
    steps = len(split) // batch
    order, seed = epoch_order(len(split), config.seed, epoch), derive_seed(config.seed, "augment", epoch)
    rows, mine = ranks.rows(batch), [ranks.rank] if ranks.rank else []
    drawing = [module for module in model.modules() if isinstance(module, DrawsEachStep)]
    loss_sum = torch.zeros((), device=next(model.parameters()).device)
    num_correct = torch.zeros_like(loss_sum)
    for step, (pixels, labels) in enumerate(split.epoch(order, batch, config.augment, seed, rows)):
        rate = learning_rate(
            config.schedule, config.lr, epoch * steps + step, config.epochs * steps, config.warmup_epochs * steps
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        for module in drawing:
            module.start_step(derive_seed(config.seed, "masks", epoch, step, *mine))
        logits = model(pixels.requires_grad_(config.jacobian_penalty > 0))
        objective = loss = functional.cross_entropy(logits, labels)
        if config.jacobian_penalty > 0:
            directions = unit_directions(batch, logits.shape[1], config.seed, epoch, step)[rows]
            directions = directions.to(logits, non_blocking=True)
            objective = loss + config.jacobian_penalty / 2 * jacobian_penalty(logits, pixels, directions)
        optimizer.zero_grad(set_to_none=True)
        objective.backward()  # type: ignore[no-untyped-call]
        ranks.average_gradients(model.parameters())
        optimizer.step()
        loss_sum += loss.detach()
        num_correct += (logits.detach().argmax(1) == labels).sum()
    return loss_sum, num_correct


def _stop(metrics: dict[str, float], epoch: int, config: TrialConfig, split: Any) -> str:
    num_classes = max(int(split.labels.max()) + 1, 2)
    loss = metrics["train/loss"]
    if not math.isfinite(loss) or loss > EXPLOSION * math.log(num_classes):
        return "diverged"
    last = epoch + 1 == config.epochs
    if last and not math.isfinite(metrics["val/loss"]):
        return "diverged"
    # not (a <= b): a NaN validation loss is worse than any curve
    if not last and epoch < len(config.stop_curve) and not metrics["val/loss"] <= config.stop_curve[epoch]:
        return "pruned"
    return ""


def state(model: nn.Module, optimizer: torch.optim.Optimizer, trained: Trained) -> dict[str, Any]:
    """What a checkpoint holds."""
    fields = {k: v for k, v in vars(trained).items() if k != "resumed_from"}
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **fields}


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> Trained:
    """Bring model and optimiser to where the checkpoint was written, if there is one; the training so far."""
    held = load_checkpoint(checkpoint)
    if held is None:
        return Trained()
    model.load_state_dict(held.pop("model"))
    optimizer.load_state_dict(held.pop("optimizer"))
    # a training that ended together with others, and is taken up to be measured, was not broken off here
    return Trained(**{"resumed_from": held["epoch"], **held})
