"""``authors_51`` to ``authors_58``: the authors' rows inside the branch, the outer skip additive. For site ``branch``.

With u what comes before the hidden map's norm BN2, and A a layer that their notes call *adap* and define nowhere: here a 1x1
convolution with bias, the least that adapts channels. At site ``skip`` the shortcut takes h's place, and the hidden map is
relu(BN2(u)) as in other operators.

Source: https://github.com/xyegithub/Featrue-map-multiplication
"""

import functools
from dataclasses import dataclass

from torch import Tensor, nn

from study.models.merges.base import Merge
from study.models.merges.rows import SOURCE
from study.models.norms import ClampedBatchNorm2d
from study.registry import MERGES


@dataclass(frozen=True, kw_only=True)
class Inside:
    """One row. Where a ReLU or a sigmoid stands: ``""`` for none.

    ``h``: on BN2(u), giving h, which A takes. ``before``: on h, before conv2. ``after``: on what conv2 gives. ``gate``: on
    A(h). ``shift``: the constant that BN2's shift is clamped to.
    """

    h: str = ""
    before: str = ""
    after: str = ""
    gate: str = "sigmoid"
    shift: float | None = None

    @property
    def formula(self) -> str:
        """In words of the registry."""
        convolved = _text(self.after, f"conv2({_text(self.before, 'h')})")
        clamped = "" if self.shift is None else f"; shift of BN2 clamped to {self.shift:g}"
        return f"{convolved} * {_text(self.gate, 'A(h)')}, h = {_text(self.h, 'BN2(u)')}, A(h) = W h + b{clamped}"


ROWS_INSIDE = {
    51: Inside(h="relu", gate=""),
    52: Inside(h="relu"),
    53: Inside(),
    54: Inside(before="relu"),
    55: Inside(shift=0),
    56: Inside(before="relu", shift=0),
    57: Inside(before="sigmoid", shift=0),
    58: Inside(h="relu", after="sigmoid", gate=""),
}


class GatedInside(Merge):
    """The operator of a row: C^2 + C parameters. Initialisation: A as all convolutions."""

    def __init__(self, channels: int, *, row: Inside) -> None:
        super().__init__(channels)
        self.row = row
        self.adapt = nn.Conv2d(channels, channels, 1)

    def make_hidden_norm(self, channels: int) -> nn.BatchNorm2d:
        """BN2, its shift clamped where the row does so."""
        return (
            nn.BatchNorm2d(channels) if self.row.shift is None else ClampedBatchNorm2d(channels, shift=self.row.shift)
        )

    def hidden(self, normalised: Tensor) -> tuple[Tensor, Tensor]:
        """h, and what conv2 takes."""
        h = _applied(self.row.h, normalised)
        return h, _applied(self.row.before, h)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Return the gated branch, for ``x`` = h and ``f`` what conv2 gives."""
        return _applied(self.row.after, f) * _applied(self.row.gate, self.adapt(x))


def _applied(function: str, values: Tensor) -> Tensor:
    return getattr(values, function)() if function else values


def _text(function: str, inner: str) -> str:
    return f"{function}({inner})" if function else inner


def register_inside() -> None:
    """Register ``authors_<row>`` for each row. Trait ``row``: its number."""
    for number, row in ROWS_INSIDE.items():
        registered = MERGES.register(
            f"authors_{number}", formula=row.formula, source=SOURCE, extra_params="C**2 + C", row=number
        )
        registered(functools.partial(GatedInside, row=row))
