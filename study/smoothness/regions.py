"""https://doi.org/10.1016/0196-6774(82)90008-6 (Shiloach and Vishkin 1982): connected regions of equal labels on grids.

Every point starts as a tree of its own; neighbours of one label hook the higher root to the lower one, and trees are
flattened, until nothing moves. All grids at once, in a number of rounds that grows with the logarithm of a region's length.
"""

import torch
from torch import Tensor


def connected_regions(labels: Tensor) -> Tensor:
    """The region of every point of grids of ``labels`` (P, H, W), as the lowest index of a point in it, int64 (P, H, W).

    Neighbours are the four points above, below, left and right. Indices count through all P * H * W points. Runs on the CPU.
    """
    labels = labels.detach().cpu()
    index = torch.arange(labels.numel()).view_as(labels)
    down = labels[:, 1:] == labels[:, :-1]
    right = labels[:, :, 1:] == labels[:, :, :-1]
    a = torch.cat([index[:, :-1][down], index[:, :, :-1][right]])
    b = torch.cat([index[:, 1:][down], index[:, :, 1:][right]])
    root = index.flatten().clone()
    while True:
        low, high = torch.minimum(root[a], root[b]), torch.maximum(root[a], root[b])
        if torch.equal(low, high):
            return root.view_as(labels)
        root.scatter_reduce_(0, high, low, "amin")
        while not torch.equal(root, flatter := root[root]):
            root = flatter


def num_regions(labels: Tensor) -> Tensor:
    """Number of connected regions of each grid of ``labels`` (P, H, W), int64 (P,)."""
    region = connected_regions(labels).flatten(1)
    first = torch.arange(region.numel()).view_as(region)
    return (region == first).sum(1)
