"""Feature map multiplication and gates without parameters, on the block's own batch norms.

Source: https://arxiv.org/abs/2106.15067
"""

from torch import Tensor

from study.models.merges.base import FMMNET, Merge
from study.registry import MERGES


@MERGES.register("mul", formula="x * F", source=FMMNET, extra_params="0")
class Multiply(Merge):
    """x * F, feature map multiplication as FMMNet has it."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * F."""
        return x * f


@MERGES.register("mul_id", formula="x * (1 + F)", source=FMMNET, extra_params="0")
class MultiplyIdentity(Merge):
    """x * (1 + F) = x + x * F: multiplication around the identity, unbounded."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * (1 + F)."""
        return x * (1 + f)


@MERGES.register("tanh_gate", formula="x * (1 + tanh F)", source=FMMNET, extra_params="0")
class TanhGate(Merge):
    """x * (1 + tanh F): multiplication around the identity, the gate within (0, 2)."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * (1 + tanh F)."""
        return x * (1 + f.tanh())


@MERGES.register("glu", formula="x * sigmoid(F)", source="https://arxiv.org/abs/1612.08083", extra_params="0")
class GatedLinearUnit(Merge):
    """x * s(F): the gated linear unit of Dauphin et al. 2016, A * s(B), with the shortcut as its linear half A.

    That is ``torch.nn.functional.glu`` of [x, F]. The paper's two weight matrices are the layers that made x and F.
    """

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x * sigmoid(F)."""
        return x * f.sigmoid()
