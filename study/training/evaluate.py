"""Accuracy and loss of a network on a split."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

EVALUATION_BATCH = 1024


@torch.no_grad()
def named_rightly(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> list[bool]:
    """Of each image, in order, whether the network names its label, in eval mode; the mode found is restored."""
    training = model.training
    model.eval()
    found = [model(pixels).argmax(1) == labels for pixels, labels in batches]
    model.train(training)
    return torch.cat(found).tolist()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """``accuracy`` (share correct) and ``loss`` (mean cross-entropy, nats) in eval mode; the mode found is restored.

    A network that gives NaN gives a NaN loss. One host synchronisation in all.
    """
    training = model.training
    model.eval()
    num_correct = loss = torch.zeros(())
    num_images = 0
    for pixels, labels in batches:
        logits = model(pixels)
        num_correct = num_correct.to(logits.device) + (logits.argmax(1) == labels).sum()
        loss = loss.to(logits.device) + functional.cross_entropy(logits, labels, reduction="sum")
        num_images += len(labels)
    model.train(training)
    return {"accuracy": float(num_correct) / num_images, "loss": float(loss) / num_images}
