"""Attention as two independent parts: a *gate* that computes a, and a *form* that says how a is applied.

Any gate goes with any form, so multiplication and its additive twin exist for every attention by construction.
"""

from torch import nn

from study.errors import UserError
from study.models.attention.forms import Form
from study.registry import ATTENTION_FORMS, ATTENTIONS, discover

discover(__name__)


def build_attention(attention: str, form: str, channels: int) -> nn.Module:
    """Return the attention module for maps of ``channels`` channels; ``none`` gives the identity.

    Raises ``UserError`` for an unknown name, or for a form without an attention and the reverse.
    """
    gate, applied = ATTENTIONS[attention], ATTENTION_FORMS[form]
    if (attention == "none") != (form == "none"):
        lacking, known = ("attention_form", ATTENTION_FORMS) if form == "none" else ("attention", ATTENTIONS)
        others = ", ".join(name for name in known.names() if name != "none")
        raise UserError(
            f"attention = {attention!r} with attention_form = {form!r}: {lacking} has to be one of {others}"
        )
    if attention == "none":
        return nn.Identity()
    built: Form = applied.build(gate.build(channels), channels)
    return built
