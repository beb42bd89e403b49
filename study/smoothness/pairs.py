"""Distinct pairs of samples, same-class or different-class, drawn uniformly without enumerating all of them."""

import torch
from torch import Tensor

_PERMUTE_BELOW = 1_000_000


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
