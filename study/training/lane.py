"""Members that train as one network, and the training step they take; also one member whose step has options.

A step of a small network is hundreds of kernels of a few microseconds: the host cannot launch them as fast as the GPU
finishes them. Captured once as a CUDA graph, they are launched together. The host waits for the device once per epoch.

Source: https://arxiv.org/abs/2102.02344
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from study.config import is_own
from study.seeding import derive_seed
from study.training.average import follow_weights
from study.training.loop import EVALUATION_BATCH, batches_per_epoch, epoch_order, kept_last, seed_own_draws
from study.training.member import Member
from study.training.options import usable
from study.training.penalty import unit_directions
from study.training.schedule import scheduled_rate
from study.training.stack import Stack
from study.training.stacked import StackedAverage, stacked_optimizer
from study.training.targets import hits, mixed, mixup_shares, soft_targets

# Maps the replicates' splits to one that gives their batches side by side (``study.data.parts.Together``).
Abreast = Callable[[Sequence[Any]], Any]
# Steps before capture, torch's own advice: what is allocated once, such as cuDNN's workspaces, exists after a few steps.
_WARM_UP = 3
# Networks that one process may compile: a study has more cells than torch's default of eight.
_COMPILED = 256


class Lane:
    """Stacked members and their training step, with usable ``options``. They change only at the end of an epoch."""

    def __init__(self, members: Sequence[Member], abreast: Abreast, options: Iterable[str] = ()) -> None:
        self.members = list(members)
        self._configs = [member.config for member in members]
        self._device = next(members[0].model.parameters()).device
        self.options = usable(options, self._configs[0], self._device.type)
        if len(members) == 1 and is_own(self._configs[0].network):
            # one that draws in its forward pass would draw to warm up and to be captured too; as one of several it cannot draw
            self.options -= {"graph"}
        self._stack = Stack(
            [member.model for member in members],
            channels_last="channels_last" in self.options,
            folded="compile" not in self.options,
        )
        clip_norms = [each.clip_norm for each in self._configs] if self._configs[0].clip_norm > 0 else None
        self._optimizer = stacked_optimizer(self._stack, [member.optimizer for member in members], clip_norms)
        self._average: StackedAverage | None = None
        if self._configs[0].ema_decay:
            self._average = StackedAverage(self._stack, [member.average for member in members])
        self._mixes = self._configs[0].mixup > 0
        self._smoothing: Tensor | None = None
        if self._configs[0].label_smoothing:
            self._smoothing = self._stack.flat.new_tensor([each.label_smoothing for each in self._configs])
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
            changed = [self._stack.flat, *self._optimizer.state.values(), *self._stack.buffers.values()]
            changed += self._average.tensors if self._average else []
            self._graph = Graphed(self._step, [*changed, self._loss_sum, self._num_correct])

    def epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train and evaluate for an epoch; per member, the metrics of ``train_epoch`` and ``validate``."""
        found = self.train(epoch) | {f"val/{name}": value for name, value in self.evaluate().items()}
        rows = torch.stack(list(found.values())).tolist()  # the only wait for the device
        self._stack.hand_back()
        self._optimizer.hand_back()
        if self._average:
            for member, average in zip(self.members, self._average.hand_back(), strict=True):
                member.average = average
        return [dict(zip(found, values, strict=True)) for values in zip(*rows, strict=True)]

    def train(self, epoch: int) -> dict[str, Tensor]:
        """One pass as in ``train_epoch``; loss and accuracy per member, (R,), on the device."""
        # not in each step: it visits every module
        self._stack.train()
        config, num = self._configs[0], len(self._train)
        batch, steps, num_seen = batches_per_epoch(config, num)
        if config.optimizer_made == "each_epoch":
            self._optimizer.reset()
        orders = [epoch_order(num, each.seed, epoch) for each in self._configs]
        seeds = [derive_seed(each.seed, "augment", epoch) for each in self._configs]
        rates = [[scheduled_rate(each, epoch * steps + step, steps) for each in self._configs] for step in range(steps)]
        shares = zip(*(mixup_shares(each, epoch, steps) for each in self._configs), strict=True)
        followed = zip(*(follow_weights(each, epoch * steps, steps) for each in self._configs), strict=True)
        rows = zip(self._optimizer.plan(rates), shares, followed, strict=True)
        # what each step is given, (steps, K + 2, R): the optimiser's rows, shares of mixed images, parts of averages
        given = torch.tensor([[*moved, *others] for moved, *others in rows], dtype=self._stack.flat.dtype)
        given = given.to(self._device, non_blocking=True)
        self._loss_sum.zero_()
        self._num_correct.zero_()
        batches = self._train.epoch(orders, batch, config.augment, seeds, **kept_last(config))
        for step, (pixels, labels) in enumerate(batches):
            seed_own_draws(config, epoch, step)
            self._stack.start_step([derive_seed(each.seed, "masks", epoch, step) for each in self._configs])
            if config.jacobian_penalty > 0:
                self._penalised_step(pixels, labels, given[step], epoch, step)
            else:
                (self._graph or self._step)(pixels, labels, given[step])
        return {
            "train/loss": self._loss_sum.double() / steps,
            "train/accuracy": self._num_correct.double() / num_seen,
        }

    def _step(self, pixels: Tensor, labels: Tensor, given: Tensor) -> None:
        pixels = mixed(pixels, given[-2]) if self._mixes else pixels
        losses, logits = (self._compiled or self._losses)(pixels, labels, given[-2])
        self._update(losses, losses, logits, labels, given)

    def _penalised_step(self, pixels: Tensor, labels: Tensor, given: Tensor, epoch: int, step: int) -> None:
        pixels = mixed(pixels, given[-2]) if self._mixes else pixels
        losses, logits = self._losses(pixels.requires_grad_(), labels, given[-2])
        self._update(losses + self._penalties(logits, pixels, epoch, step), losses, logits, labels, given)

    def _losses(self, pixels: Tensor, labels: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (R,) and logits (R, N, num_classes); of mixed ``pixels``, where images are mixed."""
        rounding: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if bf16 := "bf16" in self.options:
            # weights are rounded once per step, so no cache is needed, and a graph could not keep one
            rounding = torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False)
        with rounding:
            logits = self._stack(pixels)
        logits = logits.float() if bf16 else logits
        targets = soft_targets(labels, logits, self._smoothing, share if self._mixes else None)
        return cross_entropies(logits, targets), logits

    def _update(self, objectives: Tensor, losses: Tensor, logits: Tensor, labels: Tensor, given: Tensor) -> None:
        # the sum: each replicate's gradient is the one it has alone
        self._optimizer.step(self._stack.gradients(objectives.sum()), given)
        if self._average:
            self._average.follow(given[-1])
        self._loss_sum += losses.detach()
        self._num_correct += hits(logits, labels, given[-2] if self._mixes else None)

    def _penalties(self, logits: Tensor, pixels: Tensor, epoch: int, step: int) -> Tensor:
        """Per replicate, lambda / 2 times the squared Jacobian norm, (R,), estimated as in ``jacobian_penalty``."""
        _, batch, num_classes = logits.shape
        drawn = [unit_directions(batch, num_classes, each.seed, epoch, step) for each in self._configs]
        directions = torch.stack(drawn).to(logits, non_blocking=True)
        (gradient,) = torch.autograd.grad((directions * logits).sum(), pixels, create_graph=True)
        strengths = self._strengths / 2 * num_classes
        return strengths * gradient.square().flatten(1).sum(1) / batch

    @torch.no_grad()
    def evaluate(self) -> dict[str, Tensor]:
        """``evaluate`` with halves, per replicate on its own validation split: values (R,)."""
        self._stack.train(False)
        loss, found = torch.zeros(len(self.members), device=self._device), []
        with self._average.in_place() if self._average else contextlib.nullcontext():
            for pixels, labels in self._val.batches(EVALUATION_BATCH):
                logits = self._stack(pixels)
                found.append(logits.argmax(2) == labels)
                loss = loss + cross_entropies(logits, labels) * labels.shape[1]
        correct = torch.cat(found, 1)
        halves = {f"accuracy_half{half + 1}": _share(correct[:, half::2]) for half in range(2)}
        return {"accuracy": _share(correct), "loss": loss.double() / correct.shape[1], **halves}


def _share(correct: Tensor) -> Tensor:
    """Share of correct images per replicate, (R,), from (R, N)."""
    return correct.sum(1).double() / correct.shape[1]


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy (nats) per replicate, (R,), from ``logits`` (R, N, num_classes).

    ``targets``: labels (R, N), or probabilities like ``logits``.
    """
    each = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1), reduction="none")
    return each.view(logits.shape[:2]).mean(1)


class Graphed:
    """``step``, captured at the first call and replayed from then on; returns nothing.

    ``step`` takes tensors of the same shapes each time and changes ``state`` in place. Warm-up steps do not count: ``state``
    is restored after them. The graph keeps the memory of one step.
    """

    def __init__(self, step: Callable[..., None], state: Sequence[Tensor]) -> None:
        self._step, self._state = step, list(state)
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> None:
        """Take the step."""
        if self._replay is None:
            self._inputs = [value.clone() for value in inputs]
            before = [value.clone() for value in self._state]
            warm_up(self._once)
            with torch.no_grad():
                for value, held in zip(self._state, before, strict=True):
                    value.copy_(held)
            self._replay = capture(self._once)
        for held, value in zip(self._inputs, inputs, strict=True):
            held.copy_(value, non_blocking=True)
        self._replay()

    def _once(self) -> None:
        self._step(*self._inputs)


def warm_up(step: Callable[[], None]) -> None:
    """Run ``step`` a few times on a side stream, as capture requires."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)


def capture(step: Callable[[], None]) -> Callable[[], None]:
    """A function that replays ``step``; capturing does not run it."""
    graph = torch.cuda.CUDAGraph()
    # of this thread alone: another one may pin memory for the next batches meanwhile, which a global capture does not bear
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay
