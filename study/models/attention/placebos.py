"""Placebo forms: multiplication with one ingredient of attention taken away.

``static`` sees no image, ``shuffled`` another image, ``input_detached`` sends the features no gradient, ``untrained`` does not
learn. All are x * (1 + u), so they lack that ingredient alone against ``mul``.

A path is detached in training mode only: the placebo takes learning away. In evaluation the gradient is that of the function
computed, so input Jacobians measured on these networks are true derivatives.

Source: https://arxiv.org/abs/2106.15067
"""

import torch
from torch import Tensor, nn

from study.models.attention.forms import FMMNET, Form
from study.models.attention.gates import Gate, Parts
from study.models.fixed_draws import partners
from study.registry import ATTENTION_FORMS


@ATTENTION_FORMS.register(
    "static",
    formula="x * (1 + u_c), u_c learned, the same for every image",
    source=FMMNET,
    extra_params="C (non_local: C // 2) beside the carrier's",
)
class StaticForm(Form):
    """x * (1 + u_c) with u_c = tanh(theta_c): multiplication that does not see the image. The gate is dropped.

    tanh(theta) = 2 sigmoid(2 theta) - 1, so u_c has the range of the gated forms. C parameters, started at zero.
    """

    starts_at_identity = False

    def __init__(self, gate: Gate, channels: int) -> None:
        super().__init__(gate, channels)
        del self.gate
        self.theta = nn.Parameter(torch.zeros(self.carrier.num_moved))

    def change(self, parts: Parts) -> Tensor:
        """Return x * u_c."""
        return self.carrier.rescale(parts, self.theta.tanh().view(1, -1, 1, 1))


@ATTENTION_FORMS.register(
    "shuffled",
    formula="x * (1 + u(x of another image)), a fixed derangement of the batch",
    source=FMMNET,
    mixes_batch=True,
    extra_params="the gate's",
)
class ShuffledForm(Form):
    """x_n * (1 + u(x_m)): the weights are attention's, but of another image m, in evaluation too.

    Pairs are a fixed derangement of the batch's positions, the same in every layer, so all weights of an image come from one
    other image. Raises ``UserError`` for a batch of one.
    """

    def change(self, parts: Parts) -> Tensor:
        """Return x * u, u of the partners."""
        partner = partners(len(parts.seen), parts.seen.device, level="attention_form 'shuffled'")
        return self.carrier.weigh(parts, self.gate.centred(parts.seen)[partner])


@ATTENTION_FORMS.register("input_detached", formula="x * (1 + u(x.detach()))", source=FMMNET, extra_params="the gate's")
class InputDetachedForm(Form):
    """x * (1 + u(x.detach())): the gate learns, but sends no gradient back into the features."""

    def change(self, parts: Parts) -> Tensor:
        """Return x * u."""
        seen = parts.seen.detach() if self.training else parts.seen
        return self.carrier.weigh(parts, self.gate.centred(seen))


@ATTENTION_FORMS.register(
    "untrained",
    formula="x * (1 + u.detach()), the gate as initialised",
    source=FMMNET,
    extra_params="0 (the gate's, untrained)",
)
class UntrainedForm(Form):
    """x * (1 + u.detach()): a gate with the parameters it was given at the start.

    It starts as drawn: from zero it would stay the identity. Its parameters ask for no gradient, so weight decay spares them.
    """

    starts_at_identity = False

    def __init__(self, gate: Gate, channels: int) -> None:
        super().__init__(gate, channels)
        gate.requires_grad_(False)

    def change(self, parts: Parts) -> Tensor:
        """Return x * u."""
        u = self.gate.centred(parts.seen)
        return self.carrier.weigh(parts, u.detach() if self.training else u)
