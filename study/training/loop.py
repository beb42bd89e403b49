"""Training and evaluation of one replicate: one epoch at a time, resumable after each epoch.

No registered part draws from global random state; for a network of one's own it is seeded before each step. The order of
epoch e comes from hash(seed, "order", e), its augmentation from hash(seed, "augment", e), shares of mixed images from
hash(seed, "mixup", e), and what modules draw in step s from hash(seed, "masks", e, s). So a resumed training continues bit
for bit. The host waits for the device once per epoch.

Several processes (``Ranks``) may train one replicate, each on a share of every batch. Batch, image order, draws and learning
rate are those of one process, so the numbers agree but for last digits. Two exceptions depend on the number of ranks: what
mixes the images of a batch other than by batch norm (placebos that take another image's gate, ``noise_gate``; mixup, whose
pairs are of one rank's share), and dropout, whose masks differ by rank. Only the first rank evaluates, measures, stops the
training and writes the checkpoint.

Source: https://arxiv.org/abs/1706.02677
"""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import TrialConfig, is_own
from study.seeding import derive_seed
from study.training.member import Member, Progress
from study.training.penalty import jacobian_penalty, unit_directions
from study.training.process_group import ALONE, Ranks, synchronised
from study.training.schedule import scheduled_rate
from study.training.targets import hits, mixed, mixup_shares, soft_targets

EVALUATION_BATCH = 1024


@runtime_checkable
class DrawsEachStep(Protocol):
    """A module that draws anew for each training step (dropout masks), from the seed given to it before the step.

    It keeps the draw in non-persistent buffers of its own: fused training (``fused.py``) writes the draws there. A module
    that keeps them elsewhere trains one by one.
    """

    def start_step(self, seed: int) -> None:
        """Draw what the next forward pass in training uses, from ``seed`` alone."""
        ...


def train(member: Member, ranks: Ranks = ALONE) -> Iterator[Progress]:
    """Train ``member`` in place to its end; yields a ``Progress`` per epoch, when the checkpoint is written.

    Each of several ``ranks`` calls this with a member of its own; only the first one yields and writes the checkpoint. Raises
    ``UserError`` for an unknown augmentation, ``RanksLost`` when another rank is gone.
    """
    device = next(member.model.parameters()).device
    while (epoch := ranks.as_first(-1 if member.ended else member.trained.epoch, device)) >= 0:
        started = time.perf_counter()
        with synchronised(member.model, ranks):
            metrics = train_epoch(member, epoch, ranks)
        if ranks.rank == 0:
            metrics |= validate(member)
            member.finish_epoch(metrics, time.perf_counter() - started)
            member.measure_mid_training()
            yield member.save(ahead=ranks.size > 1)


def validate(member: Member) -> dict[str, float]:
    """``evaluate`` on the validation split, halves included, as ``val/...``: what each epoch ends with."""
    with member.averaged():
        found = evaluate(member.model, member.val_split.batches(EVALUATION_BATCH), halves=True)
    return {f"val/{name}": value for name, value in found.items()}


def batches_per_epoch(config: TrialConfig, num_images: int) -> tuple[int, int, int]:
    """Images per batch, batches per epoch, and images per epoch: a short last batch is left out, unless it is to be kept.

    One image alone is no batch: it joins the one before, as ``study.data.parts.cuts`` has it.
    """
    batch = min(config.batch_size, num_images)
    steps, rest = divmod(num_images, batch)
    if config.last_batch == "keep":
        return batch, steps + (rest > 1), num_images
    return batch, steps, steps * batch


def kept_last(config: TrialConfig) -> dict[str, bool]:
    """What ``epoch`` of a part is told beside the rest: nothing, unless a short last batch is kept."""
    return {"short": True} if config.last_batch == "keep" else {}


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """Indices (num_images,) of the images in the order of ``epoch``, on the CPU."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_images, generator=generator)


def seed_own_draws(config: TrialConfig, epoch: int, step: int, *rank: int) -> None:
    """Seed torch's global generators before a step of a network of one's own, which may draw from them (``nn.Dropout``)."""
    if is_own(config.network):
        torch.manual_seed(derive_seed(config.seed, "draws", epoch, step, *rank))


def train_epoch(member: Member, epoch: int, ranks: Ranks = ALONE) -> dict[str, float]:
    """One pass over the training split: mean loss and accuracy, of all ``ranks``."""
    _, steps, num = batches_per_epoch(member.config, len(member.train_split))
    sums = torch.stack(train_steps(member, epoch, ranks))
    loss, correct = ranks.total(sums).tolist()
    return {"train/loss": loss / (steps * ranks.size), "train/accuracy": correct / num}


def train_steps(member: Member, epoch: int, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
    """The steps of ``train_epoch``: sum of losses and number of correct images, on the device, which is not waited for."""
    model, optimizer, split, config = member.model, member.optimizer, member.train_split, member.config
    model.train()
    batch, steps, _ = batches_per_epoch(config, len(split))
    if config.optimizer_made == "each_epoch":
        optimizer.state.clear()
    order, seed = epoch_order(len(split), config.seed, epoch), derive_seed(config.seed, "augment", epoch)
    rows, mine = ranks.rows(batch), [ranks.rank] if ranks.rank else []
    drawing = [module for module in model.modules() if isinstance(module, DrawsEachStep)]
    weight = next(model.parameters())
    loss_sum = torch.zeros((), device=weight.device)
    num_correct = torch.zeros_like(loss_sum)
    numbers = torch.tensor([config.label_smoothing, *mixup_shares(config, epoch, steps)], dtype=weight.dtype)
    numbers = numbers.to(weight.device, non_blocking=True)
    smoothing = numbers[0] if config.label_smoothing else None
    for step, (pixels, labels) in enumerate(split.epoch(order, batch, config.augment, seed, rows, **kept_last(config))):
        seed_own_draws(config, epoch, step, *mine)
        for group in optimizer.param_groups:
            group["lr"] = scheduled_rate(config, epoch * steps + step, steps)
        for module in drawing:
            module.start_step(derive_seed(config.seed, "masks", epoch, step, *mine))
        share = numbers[1 + step] if config.mixup else None
        pixels = pixels if share is None else mixed(pixels, share)
        logits = model(pixels.requires_grad_(config.jacobian_penalty > 0))
        objective = loss = functional.cross_entropy(logits, soft_targets(labels, logits, smoothing, share))
        if config.jacobian_penalty > 0:
            directions = unit_directions(len(labels) * ranks.size, logits.shape[1], config.seed, epoch, step)[rows]
            directions = directions.to(logits, non_blocking=True)
            objective = loss + config.jacobian_penalty / 2 * jacobian_penalty(logits, pixels, directions)
        optimizer.zero_grad(set_to_none=True)
        objective.backward()  # type: ignore[no-untyped-call]
        ranks.average_gradients(model.parameters())
        if config.clip_norm > 0:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        member.follow_average()
        loss_sum += loss.detach()
        num_correct += hits(logits, labels, share)
    return loss_sum, num_correct


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, halves: bool = False, into: list[bool] | None = None
) -> dict[str, float]:
    """``accuracy`` (share correct) and ``loss`` (mean cross-entropy, nats) in eval mode; the mode found is restored.

    ``halves`` adds ``accuracy_half1`` (images at even positions, from 0) and ``accuracy_half2`` (the others): choosing on one
    half can be checked on the other. ``into`` gets a bool per image, its prediction's correctness. One wait for the device.
    """
    training = model.training
    model.eval()
    loss = torch.zeros(())
    found = []
    for pixels, labels in batches:
        logits = model(pixels)
        found.append(logits.argmax(1) == labels)
        loss = loss.to(logits.device) + functional.cross_entropy(logits, labels, reduction="sum")
    model.train(training)
    correct = torch.cat(found)
    values = {"accuracy": _share(correct), "loss": float(loss) / len(correct)}
    if into is not None:
        into += correct.tolist()
    if halves:
        values |= {"accuracy_half1": _share(correct[::2]), "accuracy_half2": _share(correct[1::2])}
    return values


def _share(correct: Tensor) -> float:
    return int(correct.sum()) / len(correct) if len(correct) else math.nan
