"""One form of which many operators are values: two paths, each normalised or raw, gated or not, joined by product or sum.

A path without a norm comes raw: the block leaves its own batch norm out (and that of a projection, unless a raw x is added).
A norm's shift or scale is learned, or clamped: a constant in training and in evaluation, no parameter, so neither counted nor
decayed. Clamping differs from a start: a shift that starts at 1 moves away from it.

Source: https://arxiv.org/abs/2106.15067
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from study.models.merges.base import Merge
from study.models.norms import ClampedBatchNorm2d


@dataclass(frozen=True, kw_only=True)
class Path:
    """What becomes of one path.

    ``norm``: whether it is normalised first. ``shift``, ``scale``: constants in the place of the norm's parameters. ``start``:
    where a shift that is learned starts. ``gate``: what is added to the sigmoid of the path; ``None`` for no sigmoid.
    """

    norm: bool = False
    shift: float | None = None
    scale: float | None = None
    start: float = 0.0
    gate: float | None = None

    @property
    def clamped(self) -> bool:
        """Whether a shift or a scale is a constant."""
        return self.shift is not None or self.scale is not None

    @property
    def learned(self) -> int:
        """Learned numbers per channel."""
        return self.norm * ((self.shift is None) + (self.scale is None))

    def make_norm(self, channels: int) -> nn.BatchNorm2d:
        """The path's norm."""
        if self.clamped:
            return ClampedBatchNorm2d(channels, shift=self.shift, scale=self.scale)
        norm = nn.BatchNorm2d(channels)
        nn.init.constant_(norm.bias, self.start)
        return norm

    def gated(self, values: Tensor) -> Tensor:
        """The sigmoid of the path's ``values`` and what is added to it; without a gate, the values."""
        if self.gate is None:
            return values
        return values.sigmoid() + self.gate if self.gate else values.sigmoid()

    def text(self, name: str) -> str:
        """The path in a formula."""
        inner = f"BN({name})" if self.norm else name
        if self.gate is None:
            return inner
        return f"(sigmoid({inner}) + {self.gate:g})" if self.gate else f"sigmoid({inner})"

    def notes(self, name: str) -> list[str]:
        """What a formula does not show."""
        kept = [
            f"{what} of BN({name}) clamped to {value:g}"
            for what, value in (("shift", self.shift), ("scale", self.scale))
            if value is not None
        ]
        return kept + ([f"shift of BN({name}) learned from {self.start:g}"] if self.start else [])


RAW = Path()
BN = Path(norm=True)


def bn(*, shift: float | None = None, scale: float | None = None, start: float = 0.0) -> Path:
    """A normalised path."""
    return Path(norm=True, shift=shift, scale=scale, start=start)


def sigmoid(path: Path, plus: float = 0.0) -> Path:
    """A path as a gate: its sigmoid, with ``plus`` added."""
    return replace(path, gate=plus)


@dataclass(frozen=True, kw_only=True)
class Form:
    """A product (or, with ``add``, the sum) of the two paths."""

    x: Path
    f: Path
    add: bool = False

    @property
    def formula(self) -> str:
        """In words of the registry: the gate first, or else x."""
        named = [("x", self.x), ("F", self.f)]
        if self.x.gate is None and self.f.gate is not None:
            named.reverse()
        joined = (" + " if self.add else " * ").join(path.text(name) for name, path in named)
        return "; ".join([joined, *(note for name, path in named for note in path.notes(name))])

    @property
    def extra_params(self) -> str:
        """Learned numbers, as an expression in the channels C."""
        learned = self.x.learned + self.f.learned
        return {0: "0", 1: "C"}.get(learned, f"{learned} * C")


class Joined(Merge):
    """The operator of a ``form``; the norms ``bn_f`` and ``bn_x`` take the place of the block's last and the projection's."""

    normalizes_branch = True

    def __init__(self, channels: int, *, form: Form) -> None:
        super().__init__(channels)
        self.form = form
        self.normalizes_shortcut = form.x.norm or not form.add
        if form.f.norm:
            self.bn_f = form.f.make_norm(channels)
        if form.x.norm:
            self.bn_x = form.x.make_norm(channels)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Normalise and gate the paths, then join them."""
        form = self.form
        x = form.x.gated(self.bn_x(x) if form.x.norm else x)
        f = form.f.gated(self.bn_f(f) if form.f.norm else f)
        return x + f if form.add else x * f
