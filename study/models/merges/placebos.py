"""https://arxiv.org/abs/2106.15067 and 1207.0580 (multiplicative noise, as dropout): placebos of ``tanh_gate``.

tanh_gate_shuffled = x * (1 + tanh F'), F' the branch of another image      noise_gate = x * (1 + e), Var e = Var tanh F

Both multiply x by a gate with the distribution, respectively the variance, of tanh_gate's, that says nothing about the image.
Nothing is drawn in ``forward``: pairings and signs are fixed functions of an index.
"""

import torch
from torch import Tensor

from study.models.derangement import partners
from study.models.hashing import MASK, hash32
from study.models.merges.base import FMMNET, Merge
from study.registry import MERGES

_EPS = 1e-5


@MERGES.register(
    "tanh_gate_shuffled", formula="x * (1 + tanh F(another image))", source=FMMNET, extra_params="0", mixes_batch=True
)
class TanhGateShuffled(Merge):
    """x * (1 + tanh F') with F' the branch of another image of the batch, in training and in evaluation.

    Who is paired with whom is a fixed derangement of the batch's positions, the same in every block; in training the data
    order makes it another image each time. ``UserError`` for a batch of one. No parameters.
    """

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * (1 + tanh F')."""
        partner = partners(len(f), f.device, level="merge 'tanh_gate_shuffled'")
        return x * (1 + f[partner].tanh())


@MERGES.register("noise_gate", formula="x * (1 + e), Var e = Var tanh F", source=FMMNET, extra_params="0")
class NoiseGate(Merge):
    """In training x * (1 + sd_c * r), sd_c the batch's standard deviation of tanh F in channel c, r = +-1; else x.

    r is a hash of (the block's seed, position in the batch, channel, place); the data order gives an image new signs in
    every epoch. Signs rather than normal noise, for then 1 + e stays within (0, 2), as 1 + tanh F does. sd_c is not
    detached: the branch learns how strong the noise is, which is all that it can say, and holds no dead parameter. In
    evaluation e is at its mean, 0, as in dropout, so an image does not depend on its batch. No parameters; one buffer.
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
        index = torch.arange(shape.numel(), device=device).view(shape)
        return 1 - 2 * (hash32(hash32(index) ^ self.noise_seed) & 1)
