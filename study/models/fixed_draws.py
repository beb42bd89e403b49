"""Fixed functions in the place of random draws: partners of images within a batch, a hash of places, and dropout by it.

Nothing is drawn inside ``forward``, so signs, masks and partners are the same on every device, after a resumption, and under
``vmap`` over replicates. Partners are a derangement of a batch's positions: no image is its own partner. In training the data
order makes it another image each time; in evaluation too a batch must hold at least two images. The hash is T. Mueller's.

Source: https://arxiv.org/abs/1207.0580
"""

import functools

import numpy as np
import torch
from torch import Tensor, nn

from study.errors import UserError
from study.seeding import derive_seed

MASK = 0xFFFFFFFF
_MULTIPLIER = 0x45D9F3B  # of 27 bits, so that a product with 32 bits fits in int64


def hash32(values: Tensor) -> Tensor:
    """A 32-bit integer hash (multiply and fold, twice) of int64 ``values``, of which the lower 32 bits count."""
    hashed = values & MASK  # a new tensor: what follows is done in place, which halves the time
    for _ in range(2):
        hashed ^= hashed >> 16
        hashed *= _MULTIPLIER
        hashed &= MASK
    hashed ^= hashed >> 16
    return hashed


def hash_places(shape: torch.Size, device: torch.device, seed: Tensor) -> Tensor:
    """A hash of ``seed`` and of each place in ``shape``: int64 of 32 bits, the same on every device."""
    index = torch.arange(shape.numel(), device=device).view(shape)
    return hash32(hash32(index) ^ seed)


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


class HashedDropout(nn.Module):
    """In training, each value is 0 with probability ``share`` and else divided by 1 - ``share``; in evaluation, unchanged.

    The mask is a hash of the place in the map, the layer's seed and the step's seed. The layer's comes with the initial
    weights; before each training step ``start_step`` sets the step's, hash(replicate's seed, epoch, step), kept in no
    checkpoint. So the masks of replicate r are the same in cells that differ in a merge operator, and in a resumed training.
    Maps any shape to itself; two int64 buffers. Raises ``UserError`` unless ``share`` is from 0 to below 1.
    """

    layer_seed: Tensor
    step_seed: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise UserError(f"setting 'dropout' = {share!r}: expected a number from 0 to below 1")
        self.share = share
        self.register_buffer("layer_seed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("step_seed", torch.zeros((), dtype=torch.int64), persistent=False)

    def start_from(self, seed: int) -> None:
        """Called by the seeded initialisation with a seed of this layer's own."""
        self.layer_seed.fill_(seed & MASK)

    def start_step(self, seed: int) -> None:
        """Called before each training step, with one seed for all layers: until the next call the mask stays."""
        self.step_seed.fill_(seed & MASK)

    def forward(self, x: Tensor) -> Tensor:
        """Drop and scale."""
        if not self.training:
            return x
        return torch.where(self.kept(x.shape, x.device), x / (1 - self.share), x.new_zeros(()))

    def kept(self, shape: torch.Size, device: torch.device) -> Tensor:
        """The mask (bool) in ``shape``: the same on every device."""
        # hashed twice: a mere XOR of the two seeds would couple the same places of two layers in every step
        seed = hash32(self.layer_seed ^ hash32(self.step_seed))
        return hash_places(shape, device, seed) >= round(self.share * 2**32)
