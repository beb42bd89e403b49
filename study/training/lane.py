"""https://arxiv.org/abs/2102.02344 (Wang et al. 2021, HFTA): members that train as one network, and the step that they take.

Also the way of a single member whose step has ``options`` (``study.training.options``). The host waits for the device once an
epoch.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import TrialConfig
from study.seeding import derive_seed
from study.training.checkpoint import save_checkpoint
from study.training.evaluate import EVALUATION_BATCH
from study.training.graph import Graphed
from study.training.loop import Look, Trained, epoch_order, resume, sgd, state
from study.training.options import usable
from study.training.penalty import unit_directions
from study.training.schedule import learning_rate
from study.training.stack import Stack
from study.training.stacked_sgd import StackedSGD

# From the parts of the replicates to one that gives their batches side by side (``study.data.together.Together``).
Abreast = Callable[[Sequence[Any]], Any]
# Networks that one process may compile; torch's own limit of eight is less than a study's cells.
_COMPILED = 256


@dataclass(kw_only=True, eq=False)
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


class Lane:
    """Some members, stacked, and what trains them for an epoch, by a step with those ``options`` that they can have.

    They themselves are changed at its end alone, so that an epoch that is broken off can be begun again.
    """

    def __init__(self, members: Sequence[Member], abreast: Abreast, options: Iterable[str] = ()) -> None:
        self.members = list(members)
        self._configs = [member.config for member in members]
        self._device = next(members[0].model.parameters()).device
        self.options = usable(options, self._configs[0], self._device.type)
        self._stack = Stack([member.model for member in members], channels_last="channels_last" in self.options)
        self._sgd = StackedSGD(self._stack, [member.optimizer for member in members])
        self._train = abreast([member.train_split for member in members])
        self._val = abreast([member.val_split for member in members])
        self._strengths = self._stack.flat.new_tensor([each.jacobian_penalty for each in self._configs])
        self._loss_sum = torch.zeros(len(members), device=self._device)
        self._num_correct = torch.zeros_like(self._loss_sum)
        self._compiled: Callable[..., tuple[Tensor, Tensor]] | None = None
        if "compile" in self.options:
            torch.compiler.config.recompile_limit = _COMPILED
            self._compiled = torch.compile(self._losses, dynamic=False)
        self._graph: Graphed | None = None
        if "graph" in self.options:
            changed = [self._stack.flat, self._sgd.velocity, *self._stack.buffers.values()]
            self._graph = Graphed(self._step, [*changed, self._loss_sum, self._num_correct])

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
        rates = self._rates(epoch, steps)
        self._loss_sum.zero_()
        self._num_correct.zero_()
        batches = self._train.epoch(orders, batch, config.augment, seeds)
        for step, (pixels, labels) in enumerate(batches):
            self._stack.start_step([derive_seed(each.seed, "masks", epoch, step) for each in self._configs])
            if config.jacobian_penalty > 0:
                self._penalised_step(pixels, labels, rates[step], epoch, step)
            else:
                (self._graph or self._step)(pixels, labels, rates[step])
        return {
            "train/loss": self._loss_sum.double() / steps,
            "train/accuracy": self._num_correct.double() / (steps * batch),
        }

    def _step(self, pixels: Tensor, labels: Tensor, rates: Tensor) -> None:
        losses, logits = (self._compiled or self._losses)(pixels, labels)
        self._update(losses, losses, logits, labels, rates)

    def _penalised_step(self, pixels: Tensor, labels: Tensor, rates: Tensor, epoch: int, step: int) -> None:
        losses, logits = self._losses(pixels.requires_grad_(), labels)
        self._update(losses + self._penalties(logits, pixels, epoch, step), losses, logits, labels, rates)

    def _losses(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each replicate, (R,), and logits (R, N, num_classes)."""
        with self._rounding():
            logits = self._stack(pixels, training=True)
        if "bf16" in self.options:
            logits = logits.float()
        return cross_entropies(logits, labels), logits

    def _rounding(self) -> contextlib.AbstractContextManager[Any]:
        if "bf16" not in self.options:
            return contextlib.nullcontext()
        # weights that are rounded once a step need no cache, which a graph could not keep
        return torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False)

    def _update(self, objectives: Tensor, losses: Tensor, logits: Tensor, labels: Tensor, rates: Tensor) -> None:
        # a sum, so that each replicate has the gradient that it has alone
        self._sgd.step(self._stack.gradients(objectives.sum()), rates)
        self._loss_sum += losses.detach()
        self._num_correct += (logits.detach().argmax(2) == labels).sum(1)

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
        return torch.tensor(rates, dtype=self._stack.flat.dtype).to(self._device, non_blocking=True)

    def _penalties(self, logits: Tensor, pixels: Tensor, epoch: int, step: int) -> Tensor:
        """lambda / 2 times the squared Jacobian norm of each replicate, (R,), as ``jacobian_penalty`` estimates it."""
        _, batch, num_classes = logits.shape
        drawn = [unit_directions(batch, num_classes, each.seed, epoch, step) for each in self._configs]
        directions = torch.stack(drawn).to(logits, non_blocking=True)
        (gradient,) = torch.autograd.grad((directions * logits).sum(), pixels, create_graph=True)
        strengths = self._strengths / 2 * num_classes
        return strengths * gradient.square().flatten(1).sum(1) / batch

    @torch.no_grad()
    def evaluate(self) -> dict[str, Tensor]:
        """What ``evaluate`` gives, halves too, of each replicate on its own part, in the batches that it has there."""
        loss, found = torch.zeros(len(self.members), device=self._device), []
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
