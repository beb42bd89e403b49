"""Accuracy and loss of a network on a split."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

EVALUATION_BATCH = 1024


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
