"""Scaled terms, among them the dose of multiplication.

g is one number per block. ``rezero`` (2003.04887), ``mix`` and ``square`` learn it from 0, so ``mix`` and ``square`` start as
``add`` and ``rezero`` as the identity. ``mix_25``, ``mix_50`` and ``mix_100`` fix it at 0.25, 0.5 and 1: the dose as levels;
``add`` is dose 0. ``square_25``, ``square_50`` and ``square_100`` are their controls: second order, no product of the paths.

Source: https://arxiv.org/abs/2106.15067
"""

import functools

import torch
from torch import Tensor, nn

from study.models.merges.base import FMMNET, Merge
from study.registry import MERGES

DOSES = {"25": 0.25, "50": 0.5, "100": 1.0}


@MERGES.register("rezero", formula="x + g * F", source="https://arxiv.org/abs/2003.04887", extra_params="1")
class ReZero(Merge):
    """x + g * F, g learned from 0 (1 parameter): addition whose branch is switched in, with no cross term."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.g = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + g * F."""
        return x + self.g * f


class Dosed(Merge):
    """x + F and a second-order term, weighted by g: fixed at ``dose`` (no parameter), or learned from 0 (``None``)."""

    g: Tensor | float

    def __init__(self, channels: int, *, dose: float | None = None) -> None:
        super().__init__(channels)
        self.g = nn.Parameter(torch.zeros(())) if dose is None else dose


@MERGES.register("mix", formula="x + F + g * x * F, g learned from 0", source=FMMNET, extra_params="1")
class Mix(Dosed):
    """x + F + g * x * F: from addition (g = 0) towards (1 + x)(1 + F) - 1 (g = 1)."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + F + g * x * F."""
        return x + f + self.g * x * f


@MERGES.register("square", formula="x + F + g * F * F, g learned from 0", source=FMMNET, extra_params="1")
class Square(Dosed):
    """x + F + g * F * F: second order as ``mix``, without a cross term between the paths."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return x + F + g * F * F."""
        return x + f + self.g * f * f


for _label, _dose in DOSES.items():
    MERGES.register(f"mix_{_label}", formula=f"x + F + {_dose:g} * x * F", source=FMMNET, extra_params="0")(
        functools.partial(Mix, dose=_dose)
    )
    MERGES.register(f"square_{_label}", formula=f"x + F + {_dose:g} * F * F", source=FMMNET, extra_params="0")(
        functools.partial(Square, dose=_dose)
    )
