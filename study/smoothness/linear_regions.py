"""Linear regions: how many a network crosses along a path, counted as sign changes of its ReLUs.

c(x) in {0, 1}^D says which of a network's D ReLUs are on. Along points x_0 ... x_n, sum_i ||c(x_{i+1}) - c(x_i)||_1 counts
sign changes: on lines between real samples (*between*), and on closed random ellipses of noise around real samples (*near*).
It does not see curvature inside a region, of which a multiplying network has plenty.

Source: https://arxiv.org/abs/1802.08760
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from study.errors import UserError
from study.registry import STATISTICS
from study.schema import Better, Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.pairs import KIND_WORDS, KINDS, line_batches, over_kinds, paths_at_once

_WORDS: dict[str, tuple[str, str, Better]] = {
    "transitions": ("sign changes of ReLUs along a path, mean over paths", "count", "lower"),
    "transitions_log": (
        "natural logarithm of the mean number of sign changes of ReLUs along a path",
        "natural logarithm",
        "lower",
    ),
    "share": ("sign changes of ReLUs along a path over the number of ReLUs", "ratio", "lower"),
    "per_length": (
        "sign changes of ReLUs over the path's Euclidean length",
        "count per unit of pixel intensity",
        "lower",
    ),
    "resolved": ("sign changes seen at every second point over those at all points", "ratio", "none"),
}
_EXCESS = "sign changes of ReLUs along a path that are taken back by its end, mean over paths"


@dataclass(frozen=True, kw_only=True)
class LinearRegionsSettings:
    """``num_pairs`` pairs of each kind, the first of ``path``'s; ellipses of ``sigmas`` / 255 around ``num_samples`` images.

    All from ``split``, in ``num_steps`` steps, an even number. Converged if half the steps miss at most ``tolerance``.
    """

    num_pairs: int = 128
    num_samples: int = 128
    num_steps: int = 32
    sigmas: tuple[float, ...] = (4.0, 16.0)
    tolerance: float = 0.1
    split: str = "test"

    def __post_init__(self) -> None:
        if self.num_steps % 2:
            raise UserError(f"statistic 'linear_regions': setting 'num_steps' must be even, not {self.num_steps}")


def _outcomes(settings: LinearRegionsSettings) -> list[Quantity]:
    paths = [(f"noise_{sigma:g}", f"ellipses of noise of deviation {sigma:g}/255") for sigma in settings.sigmas]
    paths += [(kind, f"lines {KIND_WORDS[kind]}") for kind in KINDS]
    found = []
    for path, where in paths:
        words = _WORDS | ({"excess": (_EXCESS, "count", "lower")} if path in KINDS else {})
        found += [
            Quantity(name=f"regions_{path}_{name}", meaning=f"{meaning}; {where}", unit=unit, better=better)
            for name, (meaning, unit, better) in words.items()
        ]
    return found


@STATISTICS.register(
    "linear_regions",
    formula="sum_i ||c(x_{i+1}) - c(x_i)||_1, c the signs of all ReLUs, on lines between samples and ellipses around them",
    source="https://arxiv.org/abs/1802.08760",
    settings=LinearRegionsSettings,
    outcomes=_outcomes,
    serves=("frequency", "path"),
    revision=2,
)
def linear_regions(settings: LinearRegionsSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Sign changes of ReLUs, as ``regions_{kind}_{name}`` with kind ``same``, ``different`` or ``noise_{sigma}``.

    An ellipse is x + sigma / 255 (a cos t + b sin t), a and b standard normal images drawn once per sample; not clipped.

    - ``transitions``: mean over paths of the number of sign changes; ``_log`` the log of that mean (delta method).
    - ``share``: the same over the number of ReLUs D, which makes networks of different size comparable.
    - ``per_length``: mean of transitions over mean Euclidean length; a ratio of means, since two images may be equal.
    - ``excess``: transitions less ||c(x_n) - c(x_0)||_1, those that are taken back; lines only.
    - ``resolved``: transitions seen at every second point over those at all points (ratio of means). Two changes of one ReLU
      within a step are not seen, so counts are lower bounds; below 1 - ``tolerance`` no estimate of the kind is converged.

    Units: numbers of sign changes, lengths in pixel units of [0, 1]. Counted are ReLU, leaky and parametric ReLU, and ReLU6 at
    both ends, each call of a module by itself; not maxima (max pooling, merge ``max``). Standard errors are over images:
    pairs that share one are not independent. Cost per path: ``num_steps`` + 1 forward passes, shared with ``path`` if pairs
    and steps are the same; memory for all signs at three points. Raises ``UserError`` without ReLUs, with GELU
    or SiLU, and for non-finite outputs, ``IncompleteError`` with the rest if a kind has no pair.

    Coverage of .95 intervals: .91 to .97 (n = 200 samples of 360 images, 128 pairs of each kind, or ellipses around 128).
    """
    around: dict[str, Estimate] = {}
    x, _ = context.sample(settings.split, settings.num_samples, f"linear_regions/{settings.split}")
    axes = [context.normal(x, f"linear_regions/axis/{axis}/{settings.split}") for axis in ("a", "b")]
    size = paths_at_once(context, settings.num_steps)
    for sigma in settings.sigmas:
        walks = [
            _walk(context, _ellipse(part, a, b, sigma / 255, settings.num_steps))[0]
            for part, a, b in zip(*(torch.split(each, size) for each in (x, *axes)), strict=True)
        ]
        around |= _estimates(settings, f"regions_noise_{sigma:g}", walks)

    def between(kind: str, pairs: Tensor) -> dict[str, Estimate]:
        walks = []
        for key, _, points in line_batches(context, settings.split, pairs, settings.num_steps):
            walk, logits = _walk(context, points())
            context.shared.put(key, (logits,))
            walks.append(walk)
        return _estimates(settings, f"regions_{kind}", walks, pairs)

    return over_kinds(context, settings.split, settings.num_pairs, between, around)


def _estimates(
    settings: LinearRegionsSettings, prefix: str, walks: list[dict[str, Tensor]], pairs: Tensor | None = None
) -> dict[str, Estimate]:
    """From walks along the lines between the images of ``pairs``, or around images."""
    values = {name: torch.cat([walk[name] for walk in walks]) for name in walks[0]}
    transitions = values["transitions"]
    resolved = estimate.ratio_of_means(values["coarse"], transitions, images=pairs)
    # if nothing changes there is nothing to miss
    fine = not bool(transitions.any()) or resolved.value >= 1 - settings.tolerance
    found = {
        "transitions": estimate.mean(transitions, pairs),
        "transitions_log": estimate.log_of_mean(transitions, images=pairs),
        "share": estimate.mean(transitions / values["units"], pairs),
        "per_length": estimate.ratio_of_means(transitions, values["length"], images=pairs),
    }
    if pairs is not None:
        found["excess"] = estimate.mean(transitions - values["net"], pairs)
    return {f"{prefix}_{name}": e.provided(fine) for name, e in found.items()} | {f"{prefix}_resolved": resolved}


def _walk(context: MeasureContext, points: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Values (P,) along P paths of ``points`` (P, S, ...), as ``SignChanges`` and ``length``; and the logits (P * S, K)."""
    changes = SignChanges(len(points), points.device)
    # more than one piece only if a single path does not fit
    pieces = torch.split(points, max(1, context.chunk // len(points)), dim=1)
    logits = torch.cat([changes.walk(context, piece) for piece in pieces])
    steps = torch.stack([(b - a).double().flatten(1).norm(dim=1) for a, b in itertools.pairwise(points.unbind(1))])
    found = {"transitions": changes.transitions, "coarse": changes.coarse, "net": changes.net, "length": steps.sum(0)}
    return found | {"units": torch.full_like(changes.transitions, changes.units)}, logits


def _ellipse(centre: Tensor, a: Tensor, b: Tensor, radius: float, num_steps: int) -> Tensor:
    """Points (P, num_steps + 1, ...); the last one is exactly the first."""
    angles = [2 * math.pi * (index % num_steps) / num_steps for index in range(num_steps + 1)]
    return torch.stack([centre + radius * (math.cos(angle) * a + math.sin(angle) * b) for angle in angles], 1)


# operations that have a kink at 0 of their first argument
_KINKS = {f"aten::{name}" for name in ("relu", "relu_", "leaky_relu", "leaky_relu_", "_prelu_kernel")}
# activations of which a network has no linear regions
_SMOOTH = {f"aten::{name}" for name in ("gelu", "gelu_", "silu", "silu_")}
_CLAMPS = {"aten::hardtanh", "aten::hardtanh_"}


class ReluSigns(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, calls ``receive`` with (N, U) booleans for each ReLU of a forward pass of ``num_images`` images.

    Counted are ReLU, leaky and parametric ReLU (above 0), and ReLU6 (above 0, and above 6). Signs are read where tensors are
    computed, below modules and functions: ``nn.ReLU``, ``functional.relu``, ``x.relu()`` and their in-place forms count alike,
    and a module called twice counts twice. Raises ``UserError`` for a ReLU whose first dimension is not the images'.
    """

    def __init__(self, num_images: int, receive: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._num_images, self._receive = num_images, receive

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Read the signs, then compute: an in-place form overwrites what is read."""
        if func.name() in _KINKS:
            self._read(args[0], 0.0)
        elif func.name() in _CLAMPS and len(args) > 2 and args[1] == 0:
            self._read(args[0], 0.0)
            self._read(args[0], float(args[2]))
        elif func.name() in _SMOOTH:
            raise UserError(
                f"the network has {func.name().removeprefix('aten::').strip('_').upper()}: it has no linear regions to count"
            )
        return func(*args, **(kwargs or {}))

    def _read(self, before: Tensor, kink: float) -> None:
        if before.dim() == 0 or before.shape[0] % self._num_images:
            raise UserError(
                f"a ReLU sees a tensor of shape {tuple(before.shape)}: its first dimension must be the {self._num_images} "
                "images', or its sign cannot be told by image"
            )
        self._receive((before.detach() > kink).reshape(self._num_images, -1))


class SignChanges:
    """Sign changes of ReLUs along P paths at once, each (P,) float64.

    ``transitions`` from point to point, ``coarse`` at every second point, ``net`` between the ends; ``units`` is the number of
    ReLUs. The signs at a path's first and last two points are kept, so points may come a few at a time.
    """

    def __init__(self, num_paths: int, device: torch.device) -> None:
        self.transitions, self.coarse = (torch.zeros(num_paths, dtype=torch.float64, device=device) for _ in range(2))
        self.units = 0
        self._num_points = 0
        self._first: list[Tensor] = []
        self._last: list[Tensor] = []

    @torch.no_grad()
    def walk(self, context: MeasureContext, points: Tensor) -> Tensor:
        """Continue the paths by ``points`` (P, S, ...); their logits (P * S, K). Raises ``UserError`` without ReLUs."""
        number = itertools.count()
        flat, shape = points.flatten(0, 1), (*points.shape[:2], -1)
        with ReluSigns(len(flat), lambda signs: self._see(next(number), signs.view(shape))):
            logits = context.checked(context.model(flat))
        if not self._first:
            raise UserError(
                "the network has no ReLU (nor leaky or parametric ReLU, nor ReLU6): it has no linear regions to count"
            )
        self._num_points += points.shape[1]
        return logits

    @property
    def net(self) -> Tensor:
        """Changes between the first and the last point."""
        each = [(first != last[:, -1]).sum(1) for first, last in zip(self._first, self._last, strict=True)]
        return torch.stack(each).sum(0).double()

    def _see(self, number: int, signs: Tensor) -> None:
        """Count the signs (P, S, U) of a ReLU at the next points."""
        if not self._num_points:
            self._first.append(signs[:, 0].clone())
            self._last.append(signs[:, :0])
            self.units += signs.shape[2]
        before = self._last[number]
        seen = torch.cat([before, signs], 1)
        new, known = self._num_points, before.shape[1]
        steps = seen[:, max(0, known - 1) :]
        self.transitions += (steps[:, 1:] != steps[:, :-1]).sum((1, 2))
        # points of even number, from the second one on, against the point two before
        ends = [known + index - new for index in range(max(2, new), new + signs.shape[1]) if index % 2 == 0]
        if ends:
            self.coarse += (seen[:, ends] != seen[:, [end - 2 for end in ends]]).sum((1, 2))
        self._last[number] = seen[:, -2:].clone()
