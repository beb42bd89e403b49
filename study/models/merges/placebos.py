"""Placebos of ``tanh_gate``: x times a gate with its distribution, or its variance, that knows nothing of the image.

Nothing is drawn in ``forward``: pairs and signs are fixed functions of an index.

Source: https://arxiv.org/abs/2106.15067
"""

import torch
from torch import Tensor

from study.models.fixed_draws import MASK, hash_places, partners
from study.models.merges.base import FMMNET, Merge
from study.registry import MERGES

_EPS = 1e-5


@MERGES.register(
    "tanh_gate_shuffled", formula="x * (1 + tanh F(another image))", source=FMMNET, extra_params="0", mixes_batch=True
)
class TanhGateShuffled(Merge):
    """x * (1 + tanh F') with F' the branch of another image of the batch, in training and in evaluation.

    Pairs are a fixed derangement of the batch's positions, the same in every block; in training the data order makes it
    another image each time. Raises ``UserError`` for a batch of one. No parameters.
    """

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * (1 + tanh F')."""
        partner = partners(len(f), f.device, level="merge 'tanh_gate_shuffled'")
        return x * (1 + f[partner].tanh())


@MERGES.register("noise_gate", formula="x * (1 + e), Var e = Var tanh F", source=FMMNET, extra_params="0")
class NoiseGate(Merge):
    """In training x * (1 + sd_c * r), sd_c the batch's standard deviation of tanh F in channel c, r = +-1; else x.

    r is a hash of (the block's seed, position in the batch, channel, place); the data order gives an image new signs in
    every epoch. Signs, not normal noise, keep 1 + e within (0, 2), as 1 + tanh F is. sd_c is not detached: the branch learns
    the strength of the noise alone, and holds no dead parameter. In evaluation e is at its mean, 0, as in dropout (1207.0580),
    so an image does not depend on its batch. No parameters; one buffer.
    """

    noise_seed: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("noise_seed", torch.zeros((), dtype=torch.int64))

    def start_from(self, seed: int) -> None:
        """Called by the seeded initialisation with a seed of this block's own."""
        self.noise_seed.fill_(seed & MASK)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * (1 + e)."""
        if not self.training:
            return x
        deviation = (f.tanh().var((0, 2, 3), unbiased=False, keepdim=True) + _EPS).sqrt()
        return x * (1 + deviation * self.signs(x.shape, x.device).to(x.dtype))

    def signs(self, shape: torch.Size, device: torch.device) -> Tensor:
        """r, -1 or 1 (int64) in ``shape``: the same on every device."""
        return 1 - 2 * (hash_places(shape, device, self.noise_seed) & 1)
