"""https://arxiv.org/abs/1710.09412 (Zhang et al. 2018, mixup): points on straight lines between samples, passed in batches.

``linear_regions`` takes the first of ``path``'s pairs at the same points, so the logits that it finds on the way serve both.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from study.smoothness.context import MeasureContext


def paths_at_once(context: MeasureContext, num_steps: int) -> int:
    """Paths of ``num_steps`` + 1 points that are passed together: as many as fit in a chunk, one at the least."""
    return max(1, context.chunk // (num_steps + 1))


def batches(
    context: MeasureContext, split: str, pairs: Tensor, num_steps: int
) -> Iterator[tuple[tuple[object, ...], Tensor, Tensor]]:
    """Batches of ``pairs`` (P, 2), each with the key under which its logits are shared, and its points.

    Points (P, num_steps + 1, ...) lie at equal steps from a pair's first image to its second; the ends are exact.
    """
    images, _ = context.split(split)
    for batch in torch.split(pairs, paths_at_once(context, num_steps)):
        start, end = (images[side.to(images.device)] for side in batch.unbind(1))
        t = torch.linspace(0, 1, num_steps + 1, dtype=start.dtype, device=start.device)
        t = t.view(1, -1, *[1] * (start.ndim - 1))
        key = ("lines", split, num_steps, context.chunk, *batch.flatten().tolist())
        yield key, batch, (1 - t) * start[:, None] + t * end[:, None]
