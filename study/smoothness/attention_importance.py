"""https://arxiv.org/abs/2106.15067 (claim C1): are attention weights consistent with the importance of what they weigh?

By layer, over units (channels, or positions where the gate has one value a position), the rank correlation of a gate's mean
with the unit's importance: the loss that taking the unit out adds while all gates stand still (``clamped``). A correlation
cannot exceed what noise in both leaves, ceiling = sqrt(reliability of gate * reliability of importance), so the claim is
judged on spearman / ceiling. Beside it stand the same for units shuffled (the null), and for the unit's mean absolute
activation in the place of the gate (a control that is known to say something of importance).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from study.registry import STATISTICS
from study.seeding import derive_seed
from study.smoothness import estimate
from study.smoothness.clamped import Layer, ablation, clamped, read_layers, taylor
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.rank import Array, kendall, reliability, spearman, top_overlap

KINDS = ("zero", "mean", "taylor")
AGREEMENTS = {"spearman": spearman, "kendall": kendall, "top10": top_overlap}
PREFIX = "attention_importance"
# fewer units than this have no ranks to speak of
_LEAST_UNITS = 4
_BOOTSTRAPS = 200
# Under a lower mean ceiling the correlation's error, divided by it, drowns the ratio.
_LEAST_CEILING = 0.2


@dataclass(frozen=True, kw_only=True)
class AttentionImportanceSettings:
    """``num_samples`` images of ``split``, ``num_halves`` random halvings for reliability, ``num_shuffles`` for the null."""

    num_samples: int = 256
    num_halves: int = 20
    num_shuffles: int = 100
    split: str = "test"


def _names(settings: AttentionImportanceSettings) -> list[str]:
    each = [*AGREEMENTS, *(f"{name}_null" for name in AGREEMENTS), "ceiling", "ratio", "activation", "per_image"]
    return [f"{PREFIX}_{name}_{kind}" for kind in KINDS for name in each]


@STATISTICS.register(
    "attention_importance",
    formula="rank correlation over units of mean gate and loss added by taking the unit out, gates clamped; its ceiling",
    source="https://arxiv.org/abs/2106.15067",
    settings=AttentionImportanceSettings,
    names=_names,
    only="networks with attention",
)
def attention_importance(settings: AttentionImportanceSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Agreement of gate and importance for three importances: ablation to zero, to the mean, and Taylor.

    For each the mean over layers of ``spearman``, ``kendall`` (tau-b), ``top10`` (share of the top tenth in common), their
    ``_null`` (units shuffled), the noise ``ceiling`` of spearman, ``ratio`` = spearman / ceiling, ``activation`` (spearman
    of mean absolute activation and importance) and ``per_image`` (spearman within an image, mean over images and layers);
    then the first, the ceiling and the control for each layer, as ``attention_importance_layer3_spearman_zero``, layers
    counted from the input. Standard errors by 200 resamplings of the images (``per_image``: over images; ``_null``: over
    shuffles; the ceiling has none). Not converged where a layer's gates are all equal, the ratio also where the mean ceiling
    is below 0.2, and from a single image; layers of fewer than four units are left out. A network without gates has no
    estimates at all. Units: none, all are correlations or shares. Cost: two
    forward passes an image and unit, one backward an image. Raises ``UserError`` for non-finite outputs.
    """
    x, y = context.sample(settings.split, settings.num_samples, f"{PREFIX}/{settings.split}")
    layers = [layer for layer in read_layers(context, x) if layer.num_units >= _LEAST_UNITS]
    if not layers:
        return {}
    seed = derive_seed(context.seed, "smoothness", PREFIX)
    estimates: dict[str, Estimate] = {}
    by_layer: dict[str, Estimate] = {}
    for kind, importances in _importances(context, layers, x, y).items():
        found = [
            _agreement(_numpy(layer.gate), _numpy(layer.activation), _numpy(importance), settings, seed)
            for layer, importance in zip(layers, importances, strict=True)
        ]
        estimates |= {f"{PREFIX}_{name}_{kind}": _over_layers([each[name] for each in found]) for name in found[0]}
        ratio = _ratio(estimates[f"{PREFIX}_spearman_{kind}"], estimates[f"{PREFIX}_ceiling_{kind}"])
        estimates[f"{PREFIX}_ratio_{kind}"] = ratio
        for index, each in enumerate(found):
            names = ("spearman", "ceiling", "activation")
            by_layer |= {f"{PREFIX}_layer{index + 1}_{name}_{kind}": each[name] for name in names}
    return {name: estimates[name] for name in _names(settings)} | by_layer


def _importances(context: MeasureContext, layers: list[Layer], x: Tensor, y: Tensor) -> dict[str, list[Tensor]]:
    """Importance (N, U) by kind and layer, gates clamped."""
    with clamped(layers):
        baseline, first_order = taylor(context, layers, x, y)
        ablated = {
            kind: [ablation(context, layer, x, y, baseline, mean=kind == "mean") for layer in layers]
            for kind in ("zero", "mean")
        }
    return {**ablated, "taylor": first_order}


def _agreement(
    gate: Array, activation: Array, importance: Array, settings: AttentionImportanceSettings, seed: int
) -> dict[str, Estimate]:
    """One layer's estimates, from values (N, U)."""
    generator = np.random.default_rng(seed)
    num_images, num_units = gate.shape
    # how often each image is drawn: a resampled mean is a product with these
    drawn = generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=_BOOTSTRAPS) / num_images
    shuffles = np.stack([generator.permutation(num_units) for _ in range(settings.num_shuffles)])
    means = {
        name: values.mean(0, keepdims=True) for name, values in (("g", gate), ("a", activation), ("i", importance))
    }
    # a gate that does not differ by more than rounding ranks nothing
    constant = float(np.ptp(means["g"])) <= 1e-6 * float(np.abs(means["g"]).max())
    found = {}
    for name, agree in AGREEMENTS.items():
        spread = agree(drawn @ gate, drawn @ importance)
        found[name] = _boot(float(agree(means["g"], means["i"])[0]), spread, num_images).provided(not constant)
        null = agree(np.broadcast_to(means["g"], shuffles.shape), means["i"][0][shuffles])
        found[f"{name}_null"] = estimate.mean(torch.from_numpy(null)).provided(not constant)
    kept = [reliability(values, settings.num_halves, np.random.default_rng(seed)) for values in (gate, importance)]
    ceiling = math.sqrt(kept[0] * kept[1])
    found["ceiling"] = Estimate(ceiling, math.nan, num_images, not constant and math.isfinite(ceiling))
    control = spearman(drawn @ activation, drawn @ importance)
    found["activation"] = _boot(float(spearman(means["a"], means["i"])[0]), control, num_images)
    found["per_image"] = estimate.mean(torch.from_numpy(spearman(gate, importance)))
    return found


def _boot(value: float, spread: Array, num_images: int) -> Estimate:
    # one image, drawn again and again, has no spread to tell
    known = num_images > 1 and math.isfinite(value) and bool(np.isfinite(spread).all())
    return Estimate(value, float(spread.std(ddof=1)) if known else math.nan, num_images, known)


def _over_layers(each: list[Estimate]) -> Estimate:
    """The mean over layers, whose errors are taken as independent."""
    stderr = math.sqrt(sum(e.stderr**2 for e in each)) / len(each)
    value = sum(e.value for e in each) / len(each)
    return Estimate(value, stderr, each[0].num_samples, all(e.converged for e in each))


def _ratio(spearman_found: Estimate, ceiling: Estimate) -> Estimate:
    """Mean correlation over mean ceiling; the ceiling's own error is left out.

    A layer in which nothing is reliable has ceiling 0 and an expected correlation of 0: it counts in both means.
    """
    if not ceiling.value > 0:
        return Estimate(math.nan, math.nan, ceiling.num_samples, False)
    known = spearman_found.converged and ceiling.converged and ceiling.value >= _LEAST_CEILING
    return Estimate(
        spearman_found.value / ceiling.value, spearman_found.stderr / ceiling.value, ceiling.num_samples, known
    )


def _numpy(values: Tensor) -> Array:
    found: Array = values.double().cpu().numpy()
    return found
