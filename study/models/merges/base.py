"""The base of merge operators.

Every operator is a module called as ``merge(x, f)`` on two tensors of one shape (N, C, H, W), giving that shape. The block
applies its ReLU afterwards. An operator that holds its own batch norm for a path, or takes that path without one, declares it
(``normalizes_branch``, ``normalizes_shortcut``); the block then leaves its own out, and nothing is normalised twice. One that
drops x declares that too (``uses_shortcut``), so that the block has no projection which nothing trains. One that takes the
hidden map at site ``branch`` may say which norm that map has and where its ReLU stands (``hidden``).

Traits in the registry: ``extra_params``, the operator's own number of parameters as a Python expression in its channels C;
``mixes_batch=True`` where an image's output depends on the other images of its batch in evaluation too.

Source: https://arxiv.org/abs/2106.15067
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

FMMNET = "https://arxiv.org/abs/2106.15067"
RESNET = "https://arxiv.org/abs/1512.03385"


class Merge(nn.Module):
    """Base of all merge operators. Initialisation: batch norms at scale 1 and shift 0, unless the operator sets others."""

    normalizes_branch = False
    normalizes_shortcut = False
    uses_shortcut = True
    # the block's; what a formula names stays
    activation: Callable[[Tensor], Tensor] = staticmethod(torch.relu)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def make_hidden_norm(self, channels: int) -> nn.BatchNorm2d:
        """The norm of the hidden map that the operator takes at site ``branch``."""
        return nn.BatchNorm2d(channels)

    def hidden(self, normalised: Tensor) -> tuple[Tensor, Tensor]:
        """At site ``branch``, from the hidden map after its norm: what the operator takes, and what the convolution takes."""
        g = self.activation(normalised)
        return g, g

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Merge shortcut ``x`` and branch ``f``, both (N, C, H, W)."""
        raise TypeError(f"{type(self).__name__} defines no merge")
