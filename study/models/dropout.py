"""Dropout that draws nothing: its mask is a hash of the place in the map, the layer's seed and the step's seed.

The layer's seed comes with the initial weights; the training loop sets the step's, hash(replicate's seed, epoch, step), by
``start_step``. So the masks of replicate r are the same in cells that differ in a merge operator, and in a resumed training.

Source: https://arxiv.org/abs/1207.0580
"""

import torch
from torch import Tensor, nn

from study.errors import UserError
from study.models.fixed_draws import MASK, hash32, hash_places


class HashedDropout(nn.Module):
    """In training, each value is 0 with probability ``share`` and else divided by 1 - ``share``; in evaluation, unchanged.

    Maps any shape to itself; each value of the batch has a mask of its own. Two int64 buffers, no parameters. The step's
    seed is kept in no checkpoint: before each training step ``start_step`` sets it. Raises ``UserError`` unless ``share``
    is from 0 to below 1.
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
