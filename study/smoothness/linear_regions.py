"""https://arxiv.org/abs/1802.08760 (Novak et al. 2018, section 3.2): how many linear regions a network crosses.

c(x) in {0, 1}^D says which of a network's D ReLUs are on. Along points x_0 ... x_n, sum_i ||c(x_{i+1}) - c(x_i)||_1 counts
sign changes: on lines between real samples (*between*), and on closed ellipses of noise around real samples (*near*), the
paper's random ellipse. It is blind to curvature inside a region, of which a network that multiplies has plenty.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from study.errors import UserError
from study.registry import STATISTICS
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.lines import batches, paths_at_once
from study.smoothness.pairs import KINDS, over_kinds
from study.smoothness.sign_changes import SignChanges

_NAMES = ("transitions", "transitions_log", "share", "per_length", "resolved")


@dataclass(frozen=True, kw_only=True)
class LinearRegionsSettings:
    """``num_pairs`` pairs of each kind, the first of ``path``'s; ellipses of ``sigmas`` / 255 around ``num_samples`` images.

    All of ``split``, in ``num_steps`` steps, an even number. Converged where half the steps miss at most ``tolerance``.
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
        if len({f"{sigma:g}" for sigma in self.sigmas}) < len(self.sigmas):
            raise UserError(f"statistic 'linear_regions': setting 'sigmas' holds a value twice: {list(self.sigmas)}")


def _names(settings: LinearRegionsSettings) -> list[str]:
    around = [f"regions_noise_{sigma:g}_{name}" for sigma in settings.sigmas for name in _NAMES]
    return around + [f"regions_{kind}_{name}" for kind in KINDS for name in (*_NAMES, "excess")]


@STATISTICS.register(
    "linear_regions",
    formula="sum_i ||c(x_{i+1}) - c(x_i)||_1, c the signs of all ReLUs, on lines between samples and ellipses around them",
    source="https://arxiv.org/abs/1802.08760",
    settings=LinearRegionsSettings,
    names=_names,
    serves="path",
)
def linear_regions(settings: LinearRegionsSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Sign changes of ReLUs, as ``regions_{kind}_{name}`` with kind ``same``, ``different`` or ``noise_{sigma}``.

    An ellipse is x + sigma / 255 (a cos t + b sin t), a and b standard normal images drawn once for each sample, so that
    every point of it is a noisy image as in ``noise_stability``; it is not clipped.

    - ``transitions``: mean over paths of the number of sign changes; ``_log`` the log of that mean (delta method).
    - ``share``: the same over the number of ReLUs D, which makes networks of different size comparable.
    - ``per_length``: mean of transitions over mean Euclidean length; a ratio of means, for two images may be the same.
    - ``excess``: transitions less ||c(x_n) - c(x_0)||_1, those that are taken back; lines only.
    - ``resolved``: transitions seen at every second point over those at all points (ratio of means). Two changes of one
      ReLU within a step are not seen, so counts are lower bounds; under 1 - ``tolerance`` none of the kind is converged.

    Units: numbers of sign changes, lengths in pixel units of [0, 1]. Counted are ReLU, leaky and parametric ReLU, and ReLU6
    at both ends, every call of a module by itself; not maxima (max pooling, merge ``max``). Standard errors are over paths
    (pairs share images, see ``path``). Cost a path: ``num_steps`` + 1 forward passes, which ``path`` shares where pairs and
    steps are the same; memory for all signs at three points of a path. Raises ``UserError`` for a network without ReLUs and
    for non-finite outputs, ``IncompleteError`` with the rest where a kind has no pair.
    """
    around: dict[str, Estimate] = {}
    x, _ = context.sample(settings.split, settings.num_samples, f"linear_regions/{settings.split}")
    axes = [_noise(context, x, f"linear_regions/axis/{axis}/{settings.split}") for axis in ("a", "b")]
    size = paths_at_once(context, settings.num_steps)
    for sigma in settings.sigmas:
        walks = [
            _walk(context, _ellipse(part, a, b, sigma / 255, settings.num_steps))[0]
            for part, a, b in zip(*(torch.split(each, size) for each in (x, *axes)), strict=True)
        ]
        around |= _estimates(settings, f"regions_noise_{sigma:g}", walks)

    def between(kind: str, pairs: Tensor) -> dict[str, Estimate]:
        walks = []
        for key, _, points in batches(context, settings.split, pairs, settings.num_steps):
            walk, logits = _walk(context, points)
            context.shared.put(key, (logits,))
            walks.append(walk)
        return _estimates(settings, f"regions_{kind}", walks)

    found = over_kinds(context, settings.split, settings.num_pairs, between, around)
    return {name: found[name] for name in _names(settings)}


def _estimates(settings: LinearRegionsSettings, prefix: str, walks: list[dict[str, Tensor]]) -> dict[str, Estimate]:
    values = {name: torch.cat([walk[name] for walk in walks]) for name in walks[0]}
    transitions = values["transitions"]
    resolved = estimate.ratio_of_means(values["coarse"], transitions)
    # where nothing changes there is nothing to miss
    fine = not bool(transitions.any()) or resolved.value >= 1 - settings.tolerance
    found = {
        "transitions": estimate.mean(transitions),
        "transitions_log": estimate.log_of_mean(transitions),
        "share": estimate.mean(transitions / values["units"]),
        "per_length": estimate.ratio_of_means(transitions, values["length"]),
    }
    if not prefix.startswith("regions_noise"):
        found["excess"] = estimate.mean(transitions - values["net"])
    return {f"{prefix}_{name}": e.provided(fine) for name, e in found.items()} | {f"{prefix}_resolved": resolved}


def _walk(context: MeasureContext, points: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Along P paths of ``points`` (P, S, ...), each (P,): ``transitions``, ``coarse`` (at every second point), ``net``
    (between the ends), ``length`` and ``units`` (the number of ReLUs). And the logits (P * S, K)."""
    changes = SignChanges(len(points), points.device)
    # more than one piece only where a single path does not fit
    pieces = torch.split(points, max(1, context.chunk // len(points)), dim=1)
    logits = torch.cat([changes.walk(context, piece) for piece in pieces])
    steps = torch.stack([(b - a).double().flatten(1).norm(dim=1) for a, b in pairwise(points.unbind(1))])
    found = {"transitions": changes.transitions, "coarse": changes.coarse, "net": changes.net, "length": steps.sum(0)}
    return found | {"units": torch.full_like(changes.transitions, changes.units)}, logits


def _ellipse(centre: Tensor, a: Tensor, b: Tensor, radius: float, num_steps: int) -> Tensor:
    """Points (P, num_steps + 1, ...); it ends exactly where it begins."""
    angles = [2 * math.pi * (index % num_steps) / num_steps for index in range(num_steps + 1)]
    return torch.stack([centre + radius * (math.cos(angle) * a + math.sin(angle) * b) for angle in angles], 1)


def _noise(context: MeasureContext, x: Tensor, purpose: str) -> Tensor:
    return torch.randn(x.shape, generator=context.generator(purpose), dtype=torch.float32).to(x)
