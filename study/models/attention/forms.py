"""https://arxiv.org/abs/2106.15067: how attention weights a are applied, with twins that differ in multiplication alone.

u = 2a - 1 lies in (-1, 1). In every form but ``native`` the gate's last layer starts at zero, so u = 0 and the block
starts as if it had no attention; twins therefore start equal and hold the same parameters.
"""

import torch
from torch import Tensor, nn

from study.models.attention.gates import Gate
from study.registry import ATTENTION_FORMS

FMMNET = "https://arxiv.org/abs/2106.15067"


class Form(nn.Module):
    """A gate and how it is applied to maps of ``channels`` channels."""

    starts_at_identity = True

    def __init__(self, gate: Gate, channels: int) -> None:
        super().__init__()
        self.gate = gate
        self.channels = channels

    def start(self) -> None:
        """Called after the seeded initialisation: zero the gate's last layer where the form starts at the identity."""
        if self.starts_at_identity:
            for parameter in self.gate.last_layer.parameters(recurse=False):
                nn.init.zeros_(parameter)

    def centred(self, x: Tensor) -> Tensor:
        """u = 2a - 1, broadcastable to ``x``."""
        u: Tensor = 2 * self.gate(x) - 1
        return u

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention to ``x`` (N, C, H, W)."""
        raise TypeError(f"{type(self).__name__} applies no attention")


@ATTENTION_FORMS.register("none", formula="x (goes with attention none)", source=FMMNET)
class NoForm(nn.Identity):
    """The form of no attention."""

    def __init__(self, gate: nn.Module, channels: int) -> None:
        super().__init__()  # the identity itself takes any argument in silence


@ATTENTION_FORMS.register("native", formula="x * a, initialised as published", source=FMMNET)
class Native(Form):
    """x * a."""

    starts_at_identity = False

    def forward(self, x: Tensor) -> Tensor:
        """Return x * a."""
        attended: Tensor = x * self.gate(x)
        return attended


@ATTENTION_FORMS.register("mul", formula="x * (1 + u)", source=FMMNET)
class MultiplyForm(Form):
    """x * (1 + u)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x * (1 + u)."""
        return x * (1 + self.centred(x))


@ATTENTION_FORMS.register("add", formula="x + sd_c * u, sd_c the detached running deviation of x", source=FMMNET)
class AddForm(Form):
    """x + sd_c * u: the additive twin of ``mul``, moving the branch by like amounts.

    sd_c is the running standard deviation of x in channel c. It is tracked by a batch norm without parameters, so that
    batch-norm re-estimation covers it; its normalised output is not used.
    """

    def __init__(self, gate: Gate, channels: int) -> None:
        super().__init__(gate, channels)
        self.statistics = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + sd_c * u."""
        if self.training:
            self.statistics(x.detach())
        variance = self.statistics.running_var
        if variance is None:
            raise RuntimeError("the additive form needs the running variance of its batch norm")
        # cloned: the buffer is updated in place by the next forward, before this graph's backward may have run
        deviation = variance.clone().sqrt().view(1, -1, 1, 1)
        return x + deviation * self.centred(x)


@ATTENTION_FORMS.register("static", formula="x * (1 + u_c), u_c learned, the same for every image", source=FMMNET)
class StaticForm(Form):
    """x * (1 + u_c) with u_c = tanh(theta_c): multiplication that does not look at the image. The gate is dropped.

    tanh(theta) = 2 sigmoid(2 theta) - 1, so u_c has the range of the gated forms. C parameters, started at zero.
    """

    starts_at_identity = False

    def __init__(self, gate: Gate, channels: int) -> None:
        super().__init__(gate, channels)
        del self.gate
        self.theta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x * (1 + u_c)."""
        return x * (1 + self.theta.tanh().view(1, -1, 1, 1))
