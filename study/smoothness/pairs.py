"""Samples to measure between: pairs, points on the straight lines between them, and triplets.

``path``, ``frequency`` and ``linear_regions`` draw the same pairs from the replicate's measuring seed, of fewer the first; at
the same points, logits of one serve the others. Pictures are compared across networks, so their samples must be the same in
all cells and replicates: they depend on the test split, fixed for a study, and a setting alone (``fixed_generator``).
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from study.errors import UserError
from study.seeding import derive_seed
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate, IncompleteError
from study.smoothness.memory import Images

KINDS = ("same", "different")
KIND_WORDS = {"same": "between samples of one class", "different": "between samples of different classes"}
_PERMUTE_BELOW = 1_000_000
_MOST_TRIES = 1000


def over_kinds(
    context: MeasureContext,
    split: str,
    num_pairs: int,
    estimates_of: Callable[[str, Tensor], Mapping[str, Estimate]],
    beside: Mapping[str, Estimate],
) -> dict[str, Estimate]:
    """``beside`` and what ``estimates_of(kind, pairs)`` gives for same-class and for different-class pairs of ``split``.

    Pairs depend on the measuring seed and the split alone: the same for all statistics and in all cells. Raises
    ``IncompleteError`` with the rest if a kind has no pair, ``UserError`` if there is no estimate at all.
    """
    images, labels = context.indexed(split)
    found = dict(beside)
    missing = []
    for kind in KINDS:
        pairs = draw_pairs(labels, num_pairs, kind == "same", context.generator(f"path/{kind}/{split}"))
        if len(pairs):
            found |= estimates_of(kind, pairs)
        else:
            missing.append(f"{kind}-class")
    if missing:
        reason = f"split {split!r} ({len(images)} images) has no {' and no '.join(missing)} pair to draw a path"
        raise IncompleteError(reason, found) if found else UserError(reason)
    return found


def draw_pairs(labels: Tensor, num_pairs: int, same_class: bool, generator: torch.Generator) -> Tensor:
    """``num_pairs`` distinct unordered pairs of different samples, as indices (P, 2) on the CPU; ``labels`` (N,).

    Uniform over all pairs of the kind, without replacement (an image may be in several pairs) and without enumerating them.
    All pairs of the kind (P smaller, possibly 0) if there are no more than ``num_pairs``.
    """
    labels = labels.detach().cpu()
    order = torch.argsort(labels, stable=True)
    counts = torch.unique(labels, return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    if same_class:
        first = second = torch.arange(len(counts))
        sizes = counts * (counts - 1) // 2
    else:
        first, second = torch.triu_indices(len(counts), len(counts), offset=1)
        sizes = counts[first] * counts[second]
    ends = sizes.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    flat = _distinct(total, num_pairs, generator)
    block = torch.searchsorted(ends, flat, right=True)
    within = flat - (ends - sizes)[block]
    if same_class:  # pairs (i, j), j < i, are numbered i (i - 1) / 2 + j
        i = ((1 + (1 + 8 * within.double()).sqrt()) / 2).long()
        i -= (i * (i - 1) // 2 > within).long()  # the square root may be rounded either way
        i += (i * (i + 1) // 2 <= within).long()
        j = within - i * (i - 1) // 2
    else:
        i, j = within // counts[second[block]], within % counts[second[block]]
    return torch.stack([order[starts[first[block]] + i], order[starts[second[block]] + j]], 1)


def _distinct(total: int, n: int, generator: torch.Generator) -> Tensor:
    """``n`` distinct whole numbers below ``total`` in random order; all of them, in order, if ``total <= n``."""
    if total <= n:
        return torch.arange(total)
    if total <= max(_PERMUTE_BELOW, 4 * n):
        return torch.randperm(total, generator=generator)[:n]
    drawn: dict[int, None] = {}  # a dict keeps the order of drawing
    while len(drawn) < n:
        drawn.update(dict.fromkeys(torch.randint(total, (n,), generator=generator).tolist()))
    return torch.tensor(list(drawn)[:n])


def line_points(images: Images, pairs: Tensor, t: Tensor) -> Tensor:
    """(1 - t) x_0 + t x_1 between the images of ``pairs`` (P, 2), at ``t`` (S,): (P, S, ...); the ends are exact."""
    start, end = (images[side.to(images.device)] for side in pairs.unbind(1))
    t = t.to(start).view(1, -1, *[1] * (start.ndim - 1))
    return (1 - t) * start[:, None] + t * end[:, None]


def paths_at_once(context: MeasureContext, num_steps: int) -> int:
    """Paths of ``num_steps`` + 1 points that pass together: as many as fit in a chunk, at least one."""
    return max(1, context.chunk // (num_steps + 1))


def line_batches(
    context: MeasureContext, split: str, pairs: Tensor, num_steps: int
) -> Iterator[tuple[tuple[object, ...], Tensor, Callable[[], Tensor]]]:
    """Batches of ``pairs`` (P, 2), each with the key under which its logits are shared, and what makes its
    ``line_points``: a statistic that finds the logits there needs none of them.
    """
    images, _ = context.indexed(split)
    t = torch.linspace(0, 1, num_steps + 1, dtype=images.dtype, device=images.device)
    for batch in torch.split(pairs, paths_at_once(context, num_steps)):
        key = ("lines", split, num_steps, context.chunk, *batch.flatten().tolist())
        yield key, batch, functools.partial(line_points, images, batch, t)


def fixed_generator(purpose: str, draw: int) -> torch.Generator:
    """A new CPU generator that depends only on ``purpose`` and the setting ``draw``, for samples that all networks share."""
    return torch.Generator().manual_seed(derive_seed("fixed_samples", purpose, draw))


def draw_triplets(labels: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """``num`` different triplets of samples of three different classes, as indices (T, 3) on the CPU; ``labels`` (N,).

    Classes are drawn first, uniformly, then a sample of each. T is smaller if ``num`` + 1,000 draws give no more. The first
    triplets do not depend on ``num``. Raises ``UserError`` for fewer than three classes.
    """
    labels = labels.detach().cpu()
    classes = torch.unique(labels)
    if len(classes) < 3:
        raise UserError(
            f"a plane goes through samples of three classes; these {len(labels)} images are of {len(classes)}"
        )
    members = [(labels == label).nonzero()[:, 0] for label in classes]
    found: dict[frozenset[int], list[int]] = {}
    for _ in range(num + _MOST_TRIES):
        chosen = [members[label] for label in torch.randperm(len(classes), generator=generator)[:3].tolist()]
        triplet = [int(of[torch.randint(len(of), (1,), generator=generator)]) for of in chosen]
        found.setdefault(frozenset(triplet), triplet)
        if len(found) == num:
            break
    return torch.tensor(list(found.values()))
