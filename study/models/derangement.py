"""Partners of images, for placebos that gate an image by another one: a fixed derangement of a batch's positions.

No image is its own partner, and nothing is drawn in ``forward``. In training the data order makes it another image each time;
in evaluation too a batch must hold at least two images.

Source: https://arxiv.org/abs/2106.15067
"""

import functools

import numpy as np
import torch
from torch import Tensor

from study.errors import UserError
from study.seeding import derive_seed


def partners(n: int, device: torch.device, *, level: str) -> Tensor:
    """For each of ``n`` positions another one, (n,) int64 on ``device``; ``level`` names who asks.

    Raises ``UserError`` for a batch of one.
    """
    if n < 2:
        raise UserError(f"{level} gates an image by another one: a batch of one has no other image")
    partner: Tensor = _constant(n, device)
    return partner


@functools.lru_cache(maxsize=64)
def derangement(n: int, device: torch.device) -> Tensor:
    """A fixed derangement of 0 ... n-1, n at least 2: one cycle in an order that depends on n alone.

    Not a roll by one: evaluation sets are often sorted by class, and a neighbour's gate would tell the class.
    """
    order = np.random.default_rng(derive_seed("derangement", n)).permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = np.roll(order, -1)
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        return torch.from_numpy(partner).to(device)


def _constant(n: int, device: torch.device) -> Tensor:
    """To torch.compile (``dynamic=False``) a constant: it depends on the shape alone."""
    return derangement(n, device)


# what torch.compiler.assume_constant_result sets: calling it here would import the compiler, over a second in every process
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]
