"""Non-local attention (Wang et al. 2018), embedded Gaussian, residual.

A_ij = softmax over j of theta(x_i) . phi(x_j), at P = HW positions; theta, phi, g: 1x1 convolutions to C // 2 channels
Natively x + BN(W y), y_i = sum_j A_ij g_j, the batch norm's scale zero at the start.
With u_ij = P A_ij - 1 (0 for even attention) that is y_i = mean_j (1 + u_ij) g_j: every value is multiplied by its weight.
The additive control adds the same weights instead, y_i = mean_j g_j + sd_c * mean_j u_ji: the attention that position i
receives, beside values averaged evenly (what it gives, mean_j u_ij, is always 0). ``static``: y_i = (1 + u_c) mean_j g_j.
phi, g and W have no bias: softmax and batch norm would take them away.

Source: https://arxiv.org/abs/1711.07971
"""

from torch import Tensor, nn

from study.models.attention.gates import Carrier, Gate, Parts
from study.registry import ATTENTIONS


class Values(Carrier):
    """base mean_j g_j (N, C // 2, 1, 1), moved g (N, C // 2, H, W)."""

    def __init__(self, channels: int) -> None:
        inner = channels // 2
        super().__init__(inner)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def start(self) -> None:
        """Zero the scale of the batch norm, as published: the block starts as x."""
        nn.init.zeros_(self.bn.weight)

    def split(self, x: Tensor) -> Parts:
        """The gate sees x."""
        values = self.value(x)
        return Parts(seen=x, base=values.mean((2, 3), keepdim=True), moved=values)

    def weigh(self, parts: Parts, u: Tensor) -> Tensor:
        """mean_j u_ij g_j, (N, C // 2, H, W)."""
        weighed = parts.moved.flatten(2) @ u.transpose(1, 2) / u.shape[2]
        return weighed.view_as(parts.moved)

    def spread(self, parts: Parts, u: Tensor) -> Tensor:
        """mean_j u_ji, (N, 1, H, W)."""
        return u.mean(1).view(len(u), 1, *parts.moved.shape[2:])

    def rescale(self, parts: Parts, u: Tensor) -> Tensor:
        """u_c mean_j g_j, (N, C // 2, 1, 1)."""
        return parts.base * u

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + BN(W y)."""
        attended: Tensor = x + self.bn(self.out(y))
        return attended


@ATTENTIONS.register(
    "non_local",
    formula="a_ij = softmax_j(theta(x_i) . phi(x_j)) weighs g(x_j) in x_i + BN(W sum_j a_ij g(x_j))",
    source="https://arxiv.org/abs/1711.07971",
    extra_params="4 * C * (C // 2) + C // 2 + 2 * C",
    pairwise=True,
)
class NonLocal(Gate):
    """One weight per pair of positions, (N, P, P); its rows sum to 1, and are even where theta is zero."""

    last = ("theta",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, channels // 2, 1)
        self.phi = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def make_carrier(self, channels: int) -> Carrier:
        """Return the values."""
        return Values(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return A, (N, P, P)."""
        queries, keys = self.theta(x).flatten(2), self.phi(x).flatten(2)
        gate: Tensor = (queries.transpose(1, 2) @ keys).softmax(2)
        return gate

    def centred(self, x: Tensor) -> Tensor:
        """u = P A - 1."""
        weights = self(x)
        u: Tensor = weights * weights.shape[2] - 1
        return u

    def native(self, x: Tensor, carrier: Carrier) -> Tensor:
        """Return x + BN(W y)."""
        parts = carrier.split(x)
        return carrier.finish(x, parts.base + carrier.weigh(parts, self.centred(parts.seen)))
