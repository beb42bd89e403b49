"""https://arxiv.org/abs/2102.02344 (Wang et al. 2021, HFTA): replicates of one network structure that train together.

They may differ in seed, split, learning rate, momentum, weight decay, warm-up, schedule, penalty and number of epochs. Each
has the data order, augmentation, masks and penalty directions that it has alone, and the checkpoint too, so that a training
begun together goes on alone, and the other way round. Its numbers are those of ``train`` but for the last digits, which
depend on how many train together. One that diverges, is pruned or ends drops out, and the rest are stacked anew. The host
waits for the device once an epoch.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import TrialConfig
from study.seeding import derive_seed
from study.training.checkpoint import save_checkpoint
from study.training.evaluate import EVALUATION_BATCH, evaluate
from study.training.loop import (
    Look,
    Progress,
    Trained,
    epoch_order,
    note_epoch,
    note_look,
    resume,
    sgd,
    state,
    train_epoch,
)
from study.training.penalty import unit_directions
from study.training.schedule import learning_rate
from study.training.stack import Stack
from study.training.stacked_sgd import StackedSGD

# Settings in which replicates that train together may differ: all that is not the network, its data and the batch.
_FREE = ("seed", "split_seed", "lr", "momentum", "weight_decay", "warmup_epochs", "schedule", "stop_curve", "epochs")

# From the parts of the replicates to one that gives their batches side by side (``study.data.together.Together``).
Abreast = Callable[[Sequence[Any]], Any]


def fused_with(config: TrialConfig) -> tuple[Any, ...]:
    """Equal for replicates that may train together."""
    values = {**vars(config), "jacobian_penalty": config.jacobian_penalty > 0}
    return tuple(value for name, value in values.items() if name not in _FREE)


@dataclass(kw_only=True)
class Member:
    """A replicate, as ``train`` takes it; what it has reached is in ``model``, ``optimizer`` and ``trained``."""

    model: nn.Module
    train_split: Any
    val_split: Any
    config: TrialConfig
    checkpoint: Path | None
    look: Look | None = None
    optimizer: torch.optim.SGD = field(init=False)
    trained: Trained = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = sgd(self.model, self.config)
        self.trained = resume(self.model, self.optimizer, self.checkpoint) if self.checkpoint else Trained()

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train."""
        return self.trained.done or self.trained.epoch >= self.config.epochs

    def save(self) -> None:
        """Write the checkpoint, if there is a place for it."""
        if self.checkpoint:
            held = state(self.model, self.optimizer, self.trained)
            save_checkpoint(held | ({"resumed_from": self.trained.resumed_from} if self.ended else {}), self.checkpoint)


@dataclass(frozen=True)
class Ended:
    """Member ``index`` has ended: its training, or the fault that kept it from going on."""

    index: int
    outcome: Trained | Exception


def train_together(
    members: Sequence[Member], abreast: Abreast, *, at_once: int | None = None
) -> Iterator[Progress | Ended]:
    """Train ``members`` in place; yields a ``Progress`` an epoch of each, and ``Ended`` as soon as one has ended.

    At most ``at_once`` are stacked (all, if not given); the others take turns with them, an epoch each.

    Members that were broken off at different epochs wait for those behind. Out of memory, or where a fault comes up, fewer
    train together, from the start of the epoch: halves, and in the end one alone, as ``train`` has it, whose fault is then
    its own. Raises ``ValueError`` for members that may not train together (``fused_with``).
    """
    if len({fused_with(member.config) for member in members}) != 1:
        raise ValueError("replicates that train together may not differ in network, data or batch")
    active, at_once = dict(enumerate(members)), at_once or len(members)
    lane: Lane | None = None
    while active:
        for index in [index for index, member in active.items() if member.ended]:
            yield Ended(index, active.pop(index).trained)
        behind = min((member.trained.epoch for member in active.values()), default=0)
        waiting = [index for index, member in active.items() if member.trained.epoch == behind]
        while waiting:
            chosen = waiting[:at_once]
            cohort = [active[index] for index in chosen]
            started, fault = time.perf_counter(), None
            try:
                if lane is None or lane.members != cohort:
                    lane = None  # lets go of its memory first
                    lane = Lane(cohort, abreast) if len(cohort) > 1 else None
                metrics = lane.epoch(behind) if lane else [_alone(cohort[0], behind)]
            except Exception as error:  # noqa: BLE001  whose fault it is, the smaller groups show
                fault = error.with_traceback(None)  # which would hold on to the memory
            if fault:
                lane = None
                if len(cohort) == 1:
                    active.pop(waiting.pop(0))
                    yield Ended(chosen[0], fault)
                else:
                    at_once = _fewer(len(cohort), fault)
                continue
            del waiting[: len(chosen)]
            seconds = (time.perf_counter() - started) / len(cohort)
            for member, found in zip(cohort, metrics, strict=True):
                note_epoch(member.trained, found, member.model, member.train_split, member.config)
                member.trained.train_seconds += seconds
            for member in cohort:
                note_look(member.trained, member.look, member.config)
                member.save()
            for member in cohort:
                told = member.trained
                yield Progress(told.epoch, member.config.epochs, told.curves["val/loss"][-1])


def _fewer(num: int, fault: Exception) -> int:
    """How many of ``num`` go on together after ``fault``."""
    full = out_of_memory(fault)
    if full and torch.cuda.is_available():
        torch.cuda.empty_cache()
    fewer = max(1, num // 2) if full else 1
    what = "out of memory" if full else f"{type(fault).__name__}: {fault}".splitlines()[0]
    warnings.warn(f"{num} replicates could not train together ({what}): on with {fewer} at once", stacklevel=3)
    return fewer


def out_of_memory(fault: Exception) -> bool:
    """Whether a device or the host had no memory left."""
    # the CPU's allocator raises a plain RuntimeError
    return isinstance(fault, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(fault)


def _alone(member: Member, epoch: int) -> dict[str, float]:
    metrics = train_epoch(member.model, member.optimizer, member.train_split, member.config, epoch)
    found = evaluate(member.model, member.val_split.batches(EVALUATION_BATCH), halves=True)
    return metrics | {f"val/{name}": value for name, value in found.items()}


class Lane:
    """Some members, stacked, and what trains them for an epoch.

    They themselves are changed at its end alone, so that an epoch that is broken off can be begun again.
    """

    def __init__(self, members: Sequence[Member], abreast: Abreast) -> None:
        self.members = list(members)
        self._configs = [member.config for member in members]
        self._stack = Stack([member.model for member in members])
        self._sgd = StackedSGD(self._stack, [member.optimizer for member in members])
        self._train = abreast([member.train_split for member in members])
        self._val = abreast([member.val_split for member in members])

    def epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train and evaluate for an epoch; the metrics of each member, as ``train`` has them."""
        found = self.train(epoch) | {f"val/{name}": value for name, value in self.evaluate().items()}
        rows = torch.stack(list(found.values())).tolist()  # the one wait for the device
        self._stack.hand_back()
        self._sgd.hand_back()
        return [dict(zip(found, values, strict=True)) for values in zip(*rows, strict=True)]

    def train(self, epoch: int) -> dict[str, Tensor]:
        """One pass, as ``train_epoch`` makes it; loss and accuracy of each member, (R,), on the device."""
        config, num = self._configs[0], len(self._train)
        batch = min(config.batch_size, num)
        steps = num // batch
        orders = [epoch_order(num, each.seed, epoch) for each in self._configs]
        seeds = [derive_seed(each.seed, "augment", epoch) for each in self._configs]
        params = list(self._stack.params.values())
        rates = self._rates(epoch, steps)
        loss_sum = torch.zeros(len(self.members), device=rates.device)
        num_correct = torch.zeros_like(loss_sum)
        batches = self._train.epoch(orders, batch, config.augment, seeds)
        for step, (pixels, labels) in enumerate(batches):
            self._stack.start_step([derive_seed(each.seed, "masks", epoch, step) for each in self._configs])
            penalised = config.jacobian_penalty > 0
            logits = self._stack(pixels.requires_grad_(penalised), training=True)
            objectives = losses = cross_entropies(logits, labels)
            if penalised:
                objectives = losses + self._penalties(logits, pixels, epoch, step)
            # a sum, so that each replicate has the gradient that it has alone
            gradients = torch.autograd.grad(objectives.sum(), params, allow_unused=True)
            self._sgd.step(gradients, rates[step])
            loss_sum += losses.detach()
            num_correct += (logits.detach().argmax(2) == labels).sum(1)
        return {"train/loss": loss_sum.double() / steps, "train/accuracy": num_correct.double() / (steps * batch)}

    def _rates(self, epoch: int, steps: int) -> Tensor:
        """Learning rates (steps, R) of an epoch, on the device."""
        rates = [
            [
                learning_rate(
                    each.schedule, each.lr, epoch * steps + step, each.epochs * steps, each.warmup_epochs * steps
                )
                for each in self._configs
            ]
            for step in range(steps)
        ]
        return torch.tensor(rates, dtype=self._stack.flat.dtype).to(self._stack.flat.device)

    def _penalties(self, logits: Tensor, pixels: Tensor, epoch: int, step: int) -> Tensor:
        """lambda / 2 times the squared Jacobian norm of each replicate, (R,), as ``jacobian_penalty`` estimates it."""
        _, batch, num_classes = logits.shape
        drawn = [unit_directions(batch, num_classes, each.seed, epoch, step) for each in self._configs]
        directions = torch.stack(drawn).to(logits)
        (gradient,) = torch.autograd.grad((directions * logits).sum(), pixels, create_graph=True)
        strengths = logits.new_tensor([each.jacobian_penalty for each in self._configs])
        return strengths / 2 * num_classes * gradient.square().flatten(1).sum(1) / batch

    @torch.no_grad()
    def evaluate(self) -> dict[str, Tensor]:
        """What ``evaluate`` gives, halves too, of each replicate on its own part, in the batches that it has there."""
        loss, found = torch.zeros(len(self.members), device=self._stack.flat.device), []
        for pixels, labels in self._val.batches(EVALUATION_BATCH):
            logits = self._stack(pixels, training=False)
            found.append(logits.argmax(2) == labels)
            loss = loss + cross_entropies(logits, labels) * labels.shape[1]
        correct = torch.cat(found, 1)
        halves = {f"accuracy_half{half + 1}": _share(correct[:, half::2]) for half in range(2)}
        return {"accuracy": _share(correct), "loss": loss.double() / correct.shape[1], **halves}


def _share(correct: Tensor) -> Tensor:
    """Of each replicate, from (R, N): (R,), with as many digits as ``evaluate`` gives."""
    return correct.sum(1).double() / correct.shape[1]


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of each replicate, (R,), from ``logits`` (R, N, num_classes) and ``labels`` (R, N)."""
    each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.view_as(labels).mean(1)
