"""Forms: how attention weights a are applied, with twins that differ in multiplication alone.

u = 2a - 1 lies in (-1, 1) (a product of two sigmoids: 4a - 1 in (-1, 3)). In the trained forms the gate's last layers
start at zero, so u = 0 and the block starts as if it had no attention; twins therefore start equal and hold the same
parameters. The formulas are written for gates on x; the ``Carrier`` defines what x stands for in the others.

Source: https://arxiv.org/abs/2106.15067
"""

from torch import Tensor, nn

from study.models.attention.gates import Gate, Parts
from study.models.norms import RunningMoments
from study.registry import ATTENTION_FORMS

FMMNET = "https://arxiv.org/abs/2106.15067"


class Form(nn.Module):
    """A gate and how it is applied to maps of ``channels`` channels."""

    starts_at_identity = True

    def __init__(self, gate: Gate, channels: int) -> None:
        super().__init__()
        self.gate = gate
        self.carrier = gate.make_carrier(channels)

    def start(self) -> None:
        """Called after the seeded initialisation: zero the last layers where the form starts at the identity."""
        if self.starts_at_identity:
            for layer in self.gate.last_layers:
                for parameter in layer.parameters(recurse=False):
                    nn.init.zeros_(parameter)

    def change(self, parts: Parts) -> Tensor:
        """What attention adds to the base."""
        raise TypeError(f"{type(self).__name__} applies no attention")

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention to ``x`` (N, C, H, W)."""
        parts = self.carrier.split(x)
        return self.carrier.finish(x, parts.base + self.change(parts))


@ATTENTION_FORMS.register("none", formula="x (goes with attention none)", source=FMMNET, extra_params="0")
class NoForm(nn.Identity):
    """The form of no attention."""

    def __init__(self, gate: nn.Module, channels: int) -> None:
        super().__init__()  # the identity itself takes any argument in silence


@ATTENTION_FORMS.register(
    "native",
    formula="x * a, or as in the gate's paper; initialised so too",
    source=FMMNET,
    extra_params="the gate's",
)
class Native(Form):
    """As published."""

    def __init__(self, gate: Gate, channels: int) -> None:
        super().__init__(gate, channels)
        gate.as_published()
        self.starts_at_identity = gate.zero_when_published

    def forward(self, x: Tensor) -> Tensor:
        """Return what the paper returns."""
        return self.gate.native(x, self.carrier)


@ATTENTION_FORMS.register("mul", formula="x * (1 + u)", source=FMMNET, extra_params="the gate's")
class MultiplyForm(Form):
    """x * (1 + u)."""

    def change(self, parts: Parts) -> Tensor:
        """Return x * u."""
        return self.carrier.weigh(parts, self.gate.centred(parts.seen))


@ATTENTION_FORMS.register(
    "add",
    formula="x + sd_c * u, sd_c the detached running deviation of x",
    source=FMMNET,
    extra_params="the gate's",
    revision=2,
)
class AddForm(Form):
    """x + sd_c * u: the additive twin of ``mul``, moving the branch by like amounts.

    sd_c is the running standard deviation of x in channel c. It is tracked by a batch norm without parameters, which is asked
    whenever that norm itself is in training mode, so that re-estimation covers it; its normalised output is not used.
    Revision 2: in the first one re-estimation left sd_c at 1.
    """

    def __init__(self, gate: Gate, channels: int) -> None:
        super().__init__(gate, channels)
        self.statistics = RunningMoments(self.carrier.num_moved)

    def change(self, parts: Parts) -> Tensor:
        """Return sd_c * u."""
        if self.statistics.training:
            self.statistics(parts.moved.detach())
        variance = self.statistics.running_var
        if variance is None:
            raise RuntimeError("the additive form needs the running variance of its batch norm")
        # cloned: the buffer is updated in place by the next forward, before this graph's backward may have run
        deviation = variance.clone().sqrt().view(1, -1, 1, 1)
        return deviation * self.carrier.spread(parts, self.gate.centred(parts.seen))
