"""Adaptive sharpness: how far the training loss rises when each weight moves by a small share of itself.

worst case: max of L(w + d) - L(w) over norm(d / w) <= rho, elementwise d / w, in the l_inf or the l_2 norm
average case: the mean of L(w + d) - L(w) over d / w ~ N(0, rho^2)
Neither changes when a positive factor moves from layer to layer. The paper finds little relation to generalization.

Source: https://arxiv.org/abs/2302.07011
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from study.errors import UserError, nearest
from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.scales import classes_for_scale, unit_logits
from study.smoothness.untouched import with_weights

NORMS = ("linf", "l2")
SCALES = ("", "_unit_logits")
# The first step, in units of rho, as in Auto-PGD; a step that does not raise the loss is halved.
_FIRST_STEP = 2.0


@dataclass(frozen=True, kw_only=True)
class AdaptiveSharpnessSettings:
    """``num_samples`` images of ``split``; ``rhos`` of the worst case in ``norm`` (linf, l2), ``average_rhos`` of the average.

    ``num_steps`` gradients of ascent, ``num_draws`` random perturbations; ``tolerance`` of convergence.
    """

    num_samples: int = 256
    split: str = "train"
    norm: str = "linf"
    rhos: tuple[float, ...] = (0.002, 0.008)
    num_steps: int = 20
    average_rhos: tuple[float, ...] = (0.05, 0.2)
    num_draws: int = 10
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(
                f"statistic 'adaptive_sharpness': setting 'norm': unknown norm {self.norm!r}{nearest(self.norm, NORMS)}"
            )


def _outcomes(settings: AdaptiveSharpnessSettings) -> list[Quantity]:
    worst = "in the worst case over moves of the weights by {} of themselves ({})"
    moves = [(f"{settings.norm}_{rho:g}{{}}_max", worst.format(f"{rho:g}", settings.norm)) for rho in settings.rhos]
    moves += [
        (f"{rho:g}{{}}_mean", f"on average over random moves of the weights by {rho:g} of themselves")
        for rho in settings.average_rhos
    ]
    return [
        Quantity(
            name=f"sharpness_{name.format(scale)}",
            meaning=f"rise of the training loss {where}{', logits scaled to deviation 1' if scale else ''}",
            unit="nat",
            better="lower",
        )
        for name, where in moves
        for scale in SCALES
    ]


@STATISTICS.register(
    "adaptive_sharpness",
    formula="max of L(w + d) - L(w) over norm(d / w) <= rho, and its mean over d / w ~ N(0, rho^2)",
    source="https://arxiv.org/abs/2302.07011",
    settings=AdaptiveSharpnessSettings,
    outcomes=_outcomes,
    fewest_classes=classes_for_scale,
)
def adaptive_sharpness(settings: AdaptiveSharpnessSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Rise of the mean cross-entropy in nats, as ``sharpness_{norm}_{rho}_max`` (worst case) and ``sharpness_{rho}_mean``.

    With ``_unit_logits`` the loss is that of logits scaled to standard deviation 1 within an image, sqrt(K) z~, as in the
    paper: it does not change when logits are multiplied. Of two classes it changes at a flip alone, and is never converged.
    Batch norm's statistics are fixed.

    The worst case is found by projected gradient ascent in d / w from 0; its best point is a lower bound of the maximum. Steps
    along the gradient's sign (linf) or direction (l2) begin at 2 rho; after one that does not raise the loss, ascent continues
    from the best point with half the step. Converged if the second half of the steps added ``tolerance`` of the value or less.
    Its standard error is over images, d held; that of the average case over draws, images held. Cost per scale: ``num_steps``
    forward and backward passes per image and rho, and ``num_draws`` forward passes per average rho. Raises ``UserError`` for
    a network without trained parameters, and for outputs that are not finite, at moved weights too.

    Coverage of .95 intervals: of the worst case of all images, from ascent on 256, .94 to .99 (n = 100 samples); of the
    average, by t of 9 degrees, .90 to .96 (n = 200 draws of ten moves).
    """
    x, y = context.sample(settings.split, settings.num_samples, f"adaptive_sharpness/{settings.split}")
    found: dict[str, Estimate] = {}
    for scale in SCALES:
        loss = _MovedLoss(context, x, y, unit=bool(scale))
        nowhere = loss.nowhere()
        still = loss.values(nowhere)
        for rho in settings.rhos:
            rise, settled = _worst(loss, still, rho, settings)
            found[f"sharpness_{settings.norm}_{rho:g}{scale}_max"] = estimate.mean(rise).provided(settled)
        for rho in settings.average_rhos:
            moves = (context.normal(nowhere, f"adaptive_sharpness/draw/{draw}") for draw in range(settings.num_draws))
            draws = torch.stack([loss.values(rho * move).mean() for move in moves])
            found[f"sharpness_{rho:g}{scale}_mean"] = estimate.mean(draws - still.mean())
    return found


class _MovedLoss:
    """Cross-entropies (N,) of a network whose weights are w (1 + u), for relative moves ``u`` (num_params,)."""

    def __init__(self, context: MeasureContext, x: Tensor, y: Tensor, *, unit: bool) -> None:
        self._context, self._unit, self._num_images = context, unit, len(x)
        self._chunks = context.chunks(x, y)
        self._weights = {name: p.detach() for name, p in context.model.named_parameters() if p.requires_grad}
        if not self._weights:
            raise UserError("the network has no trained parameters: there is no sharpness in them")

    def nowhere(self) -> Tensor:
        """The move of length zero."""
        return torch.cat([torch.zeros_like(w).flatten() for w in self._weights.values()])

    @torch.no_grad()
    def values(self, u: Tensor) -> Tensor:
        """Losses (N,), float64."""
        return torch.cat(list(self._losses(u)))

    def gradient(self, u: Tensor) -> Tensor:
        """Gradient of the mean loss in ``u``."""
        total = torch.zeros_like(u)
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            for losses in self._losses(u):
                total += torch.autograd.grad(losses.sum() / self._num_images, u)[0]
        return total

    def _losses(self, u: Tensor) -> Iterator[Tensor]:
        for x, y in self._chunks:
            moves = torch.split(u, [w.numel() for w in self._weights.values()])
            moved = {
                name: w * (1 + move.view_as(w)) for (name, w), move in zip(self._weights.items(), moves, strict=True)
            }
            z = self._context.checked(with_weights(self._context.model, moved, x)).double()
            if self._unit:
                z = math.sqrt(z.shape[1]) * unit_logits(z)
            yield functional.cross_entropy(z, y, reduction="none")


def _worst(loss: _MovedLoss, still: Tensor, rho: float, settings: AdaptiveSharpnessSettings) -> tuple[Tensor, bool]:
    """Rise (N,) of each image's loss at the worst move found, and whether its mean has converged."""
    best_u, best = loss.nowhere(), still
    slope, step, halfway = loss.gradient(best_u), _FIRST_STEP * rho, 0.0
    for index in range(settings.num_steps):
        if index == settings.num_steps // 2:
            halfway = float((best - still).mean())
        u = _projected(best_u + step * _direction(slope, settings.norm), rho, settings.norm)
        values = loss.values(u)
        if float(values.mean()) > float(best.mean()):
            best_u, best, slope = u, values, loss.gradient(u)
        else:
            step /= 2
    rise = best - still
    final = float(rise.mean())
    return rise, final - halfway <= settings.tolerance * final


def _direction(slope: Tensor, norm: str) -> Tensor:
    return slope.sign() if norm == "linf" else slope / slope.norm().clamp_min(torch.finfo(slope.dtype).tiny)


def _projected(u: Tensor, rho: float, norm: str) -> Tensor:
    return u.clamp(-rho, rho) if norm == "linf" else u * (rho / u.norm().clamp_min(rho))
