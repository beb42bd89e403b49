"""What a network does in between real samples, along straight lines.

On the line x_t = (1 - t) x_0 + t x_1 between two samples, at t = 0, h, ..., 1 with h = 1 / num_steps, p_i is the
temperature-scaled prediction at step i (temperature fitted on validation) unless a name says otherwise.

Source: https://arxiv.org/abs/1710.09412
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from study.errors import UserError
from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.pairs import KIND_WORDS, KINDS, line_batches, over_kinds
from study.smoothness.scales import probabilities, tempered, unit_logits

_WORDS = {
    "excess_variation": ("total variation of the prediction beyond the distance of its ends", "probability"),
    "excess_variation_probabilities": (
        "total variation of the probabilities, not temperature-scaled, beyond the distance of their ends",
        "probability",
    ),
    "excess_variation_unit_logits": (
        "total variation of logits centred and of unit length, beyond the distance of their ends",
        "length of unit logits",
    ),
    "second_difference": ("second difference of the prediction, mean along the path", "probability per squared path"),
    "linear_gap": (
        "L1 distance of the prediction from the straight line of its ends, mean along the path",
        "probability",
    ),
    "label_flips": ("changes of the predicted class along the path", "count"),
    "miss_rate": ("share of inner points predicted as neither class of the pair", "fraction of points"),
    "loss_bump": ("largest mixup loss along the path beyond that of its ends", "nat"),
    "excess_variation_log": ("natural logarithm of the mean excess variation", "natural logarithm"),
}
# One value per pair, averaged over pairs; True if it depends on the temperature.
_MEANS = {
    "excess_variation": True,
    "excess_variation_probabilities": False,
    "excess_variation_unit_logits": False,
    "second_difference": True,
    "linear_gap": True,
    "label_flips": False,
    "miss_rate": False,
    "loss_bump": True,
}


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """``num_pairs`` same-class and as many different-class pairs of ``split``; ``num_steps`` steps a path."""

    num_pairs: int = 1000
    num_steps: int = 32
    split: str = "test"

    def __post_init__(self) -> None:
        if self.num_steps < 2:
            raise UserError(f"statistic 'path': setting 'num_steps' must be 2 or more, not {self.num_steps}")


def _outcomes(settings: PathSettings) -> list[Quantity]:
    found = [
        Quantity(name=f"path_{kind}_{name}", meaning=f"{meaning}; lines {KIND_WORDS[kind]}", unit=unit, better="lower")
        for kind in KINDS
        for name, (meaning, unit) in _WORDS.items()
    ]
    ratio = f"total variation of the prediction over the distance of its ends; lines {KIND_WORDS['different']}"
    return [*found, Quantity(name="path_different_length_ratio", meaning=ratio, unit="ratio", better="lower")]


@STATISTICS.register(
    "path",
    formula="excess variation sum_i ||p_{i+1} - p_i||_1 - ||p_n - p_0||_1 and others, on lines between real samples",
    source="https://arxiv.org/abs/1710.09412",
    settings=PathSettings,
    outcomes=_outcomes,
    revision=2,
)
def path(settings: PathSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Path statistics on ``num_pairs`` same-class and as many different-class pairs, as ``path_{kind}_{name}``.

    - ``excess_variation``: mean over pairs of sum_i ||p_{i+1} - p_i||_1 - ||p_n - p_0||_1, 0 if each p_k is monotone;
      ``_log`` is the log of that mean (delta method), not converged if the mean is within float32 rounding of 0;
      ``_probabilities`` the same without temperature (T = 1); ``_unit_logits`` for unit logits with Euclidean norms.
    - ``second_difference``: ||p_{i+1} - 2 p_i + p_{i-1}||_1 / h^2, mean over interior points. Depends on h.
    - ``linear_gap``: ||p_i - (1 - t) p_0 - t p_n||_1, mean over interior points alone: at both ends it is 0 by definition.
    - ``label_flips``: number of changes of the predicted label from one point to the next.
    - ``miss_rate``: share of interior points whose predicted label is neither true label of the pair.
    - ``loss_bump``: max over all points of the mixup loss -(1 - t) log p_i[y_0] - t log p_i[y_1], minus the larger of
      its two end values; at least 0, and for different classes at least log 2 less the larger end value, as targets are
      mixed there.
    - ``path_different_length_ratio``: mean total variation over mean ||p_n - p_0||_1, different-class pairs only. A ratio of
      means, because single pairs may have equal predictions at both ends.

    Units: probability, of unit logits their length; second differences per squared path; losses in nats; flips are counted.
    Pairs are uniform over all pairs of the kind, without replacement, from the measuring seed alone: the same in all cells.
    Standard errors are over images: pairs that share one are not independent. Network and temperature are held. Cost per pair:
    ``num_steps + 1`` forward passes, less shared ones. Raises ``IncompleteError`` with the other kind's
    estimates if one kind has no pair, ``UserError`` if neither has or outputs are not finite.

    Coverage of .95 intervals: .93 to .98 (n = 200 samples of 360 images, 1,000 pairs of each kind); .68 to .87 if pairs are
    taken for independent.
    """
    return over_kinds(
        context, settings.split, settings.num_pairs, lambda kind, pairs: _estimates(settings, context, kind, pairs), {}
    )


def _estimates(settings: PathSettings, context: MeasureContext, kind: str, pairs: Tensor) -> dict[str, Estimate]:
    _, labels = context.indexed(settings.split)
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for key, batch, points in line_batches(context, settings.split, pairs, settings.num_steps):
        ends = labels[batch.to(labels.device)].long()
        (z,) = context.shared.get(key) or (context.logits(points().flatten(0, 1)),)
        z = z.view(len(batch), settings.num_steps + 1, -1)
        for name, part in path_values(z, ends.to(z.device), context.temperature).items():
            parts[name].append(part)
    values = {name: torch.cat(tensors) for name, tensors in parts.items()}
    known = context.temperature_known
    prefix = f"path_{kind}_"
    estimates = {
        prefix + name: estimate.mean(values[name], pairs).provided(known or not scaled)
        for name, scaled in _MEANS.items()
    }
    rounding = settings.num_steps * torch.finfo(torch.float32).eps
    excess = values["excess_variation"]
    estimates[prefix + "excess_variation_log"] = estimate.log_of_mean(excess, rounding, pairs).provided(known)
    if kind == "different":
        ratio = estimate.ratio_of_means(values["variation"], values["end_distance"], rounding, pairs)
        estimates[prefix + "length_ratio"] = ratio.provided(known)
    return estimates


def path_values(z: Tensor, ends: Tensor, temperature: float) -> dict[str, Tensor]:
    """The statistics of single paths, each (P,), from logits ``z`` (P, n + 1, K) and end labels ``ends`` (P, 2)."""
    num_steps = z.shape[1] - 1
    t = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64, device=z.device)
    p = tempered(z, temperature)
    variation, end_distance = _length(p, 1)
    line = torch.lerp(p[:, :1], p[:, -1:], t[None, :, None])
    label = z.argmax(-1)
    missed = (label[:, 1:-1, None] != ends[:, None, :]).all(-1)
    # log p at the two true labels, (P, n + 1, 2)
    log_p = (z.double() / temperature).log_softmax(-1).gather(-1, ends[:, None, :].expand(-1, num_steps + 1, -1))
    loss = -(1 - t) * log_p[..., 0] - t * log_p[..., 1]
    return {
        "variation": variation,
        "end_distance": end_distance,
        "excess_variation": variation - end_distance,
        "excess_variation_probabilities": _excess(probabilities(z), 1),
        "excess_variation_unit_logits": _excess(unit_logits(z), 2),
        "second_difference": p.diff(n=2, dim=1).abs().sum(-1).mean(1) * num_steps**2,
        "linear_gap": (p - line)[:, 1:-1].abs().sum(-1).mean(1),
        "label_flips": (label.diff(dim=1) != 0).sum(1).double(),
        "miss_rate": missed.double().mean(1),
        "loss_bump": loss.amax(1) - torch.maximum(loss[:, 0], loss[:, -1]),
    }


def _length(curve: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Length of ``curve`` (P, n + 1, K) and distance of its ends, each (P,), in the L1 or L2 norm."""
    steps = torch.linalg.vector_norm(curve.diff(dim=1), ord=order, dim=-1).sum(1)
    return steps, torch.linalg.vector_norm(curve[:, -1] - curve[:, 0], ord=order, dim=-1)


def _excess(curve: Tensor, order: int) -> Tensor:
    length, distance = _length(curve, order)
    return length - distance
