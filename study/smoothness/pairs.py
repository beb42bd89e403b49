"""Distinct pairs of samples, same-class or different-class, drawn uniformly without enumerating all of them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from study.errors import UserError
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate, IncompleteError

KINDS = ("same", "different")
_PERMUTE_BELOW = 1_000_000


def over_kinds(
    context: MeasureContext,
    split: str,
    num_pairs: int,
    estimates_of: Callable[[str, Tensor], Mapping[str, Estimate]],
    beside: Mapping[str, Estimate],
) -> dict[str, Estimate]:
    """``beside`` and what ``estimates_of(kind, pairs)`` gives for same-class and for different-class pairs of ``split``.

    Pairs depend on the measuring seed and the split alone: the same for every statistic and in every cell. Raises
    ``IncompleteError`` with what there is where a kind has no pair, ``UserError`` where there is nothing at all.
    """
    images, labels = context.split(split)
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
    """``num_pairs`` distinct unordered pairs of different samples, as indices (P, 2) on the CPU.

    Uniform over all pairs of the kind and without replacement, so an image may stand in several pairs but a pair is
    never drawn twice; all pairs of the kind (P smaller, possibly 0) when there are no more than ``num_pairs``.
    ``labels`` (N,).
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
    """``n`` distinct whole numbers below ``total`` in random order; all of them, in order, when ``total <= n``."""
    if total <= n:
        return torch.arange(total)
    if total <= max(_PERMUTE_BELOW, 4 * n):
        return torch.randperm(total, generator=generator)[:n]
    drawn: dict[int, None] = {}  # a dict keeps the order of drawing
    while len(drawn) < n:
        drawn.update(dict.fromkeys(torch.randint(total, (n,), generator=generator).tolist()))
    return torch.tensor(list(drawn)[:n])
