"""The training loop of one replicate: stochastic gradient descent, an epoch at a time, resumable after any epoch.

Nothing is drawn from global random state: the order of epoch e comes from hash(seed, "order", e), its augmentation from
hash(seed, "augment", e), so a resumed training continues bit for bit. The host waits for the device once an epoch.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import TrialConfig
from study.registry import AUGMENTATIONS
from study.seeding import derive_seed
from study.training.checkpoint import load_checkpoint, save_checkpoint
from study.training.evaluate import EVALUATION_BATCH, evaluate
from study.training.schedule import learning_rate

# A mean training loss above this many times that of uniform guessing counts as an explosion.
EXPLOSION = 1000.0


@dataclass(frozen=True)
class Progress:
    """What is told after an epoch."""

    epoch: int
    epochs: int
    val_loss: float


@dataclass
class Trained:
    """A replicate's training so far. ``curves`` has one value an epoch; ``best`` the weights of least validation loss."""

    curves: dict[str, list[float]] = field(default_factory=dict)
    epoch: int = 0
    stopped: str = ""
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    train_seconds: float = 0.0
    resumed_from: int = 0

    @property
    def done(self) -> bool:
        """Whether training ended before its last epoch (diverged or pruned)."""
        return bool(self.stopped)


def train(
    model: nn.Module, train_split: Any, val_split: Any, config: TrialConfig, checkpoint: Path | None
) -> Iterator[Progress | Trained]:
    """Train ``model`` in place; yields a ``Progress`` an epoch and at the end the ``Trained``.

    ``train_split`` and ``val_split`` lie on the model's device and offer ``pixels``, ``labels`` and ``batches``, and the
    first, where ``config`` augments, ``images``. Raises ``UserError`` for an unknown augmentation. With a
    ``checkpoint`` path, training resumes from it and writes it after every epoch. ``stopped`` is ``diverged`` (NaN, Inf or
    an exploding loss in training) or ``pruned`` (worse than the stop curve).
    """
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    trained = _resume(model, optimizer, checkpoint) if checkpoint else Trained()
    device = next(model.parameters()).device
    while trained.epoch < config.epochs and not trained.done:
        started = time.perf_counter()
        order = _order(len(train_split), config.seed, trained.epoch).to(device)
        metrics = _epoch(model, optimizer, train_split, order, config, trained.epoch)
        metrics |= {f"val/{k}": v for k, v in evaluate(model, val_split.batches(EVALUATION_BATCH)).items()}
        for name, value in metrics.items():
            trained.curves.setdefault(name, []).append(value)
        val_loss, best = metrics["val/loss"], trained.curves["val/loss"][trained.best_epoch - 1]
        if math.isfinite(val_loss) and (not trained.best or val_loss < best):
            trained.best_epoch = trained.epoch + 1
            trained.best = copy.deepcopy(model.state_dict())
        trained.stopped = _stop(metrics, trained.epoch, config, train_split)
        trained.epoch += 1
        trained.train_seconds += time.perf_counter() - started
        if checkpoint:
            save_checkpoint(_state(model, optimizer, trained), checkpoint)
        yield Progress(trained.epoch, config.epochs, val_loss)
    yield trained


def _order(num_images: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_images, generator=generator)


def _epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, split: Any, order: Tensor, config: TrialConfig, epoch: int
) -> dict[str, float]:
    """One pass in batches of equal size (a short last one is left out; the next epoch's order differs)."""
    model.train()
    batch = min(config.batch_size, len(order))
    steps = len(order) // batch
    images = _augmented(split, order, config, epoch)
    loss_sum = torch.zeros((), device=order.device)
    num_correct = torch.zeros((), device=order.device)
    for step in range(steps):
        rate = learning_rate(
            config.schedule, config.lr, epoch * steps + step, config.epochs * steps, config.warmup_epochs * steps
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = slice(step * batch, (step + 1) * batch)
        labels = split.labels[order[at]]
        logits = model(images(at))
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.detach()
        num_correct += (logits.detach().argmax(1) == labels).sum()
    return {"train/loss": float(loss_sum) / steps, "train/accuracy": float(num_correct) / (steps * batch)}


def _augmented(split: Any, order: Tensor, config: TrialConfig, epoch: int) -> Callable[[slice], Tensor]:
    """Pixels at a stretch of the epoch's order. All that augmentation draws goes to the device once, here."""
    if config.augment == "none":
        return lambda at: split.pixels(order[at])
    chosen = AUGMENTATIONS[config.augment].build()
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "augment", epoch))
    drawn = chosen.draw(len(order), tuple(split.images.shape[-2:]), generator).to(order.device)
    return lambda at: split.pixels(order[at], lambda images: chosen.apply(images, drawn[at]))


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


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, trained: Trained) -> dict[str, Any]:
    fields = {k: v for k, v in vars(trained).items() if k != "resumed_from"}
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **fields}


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> Trained:
    state = load_checkpoint(checkpoint)
    if state is None:
        return Trained()
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    return Trained(**state, resumed_from=state["epoch"])
