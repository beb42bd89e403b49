"""Do attention weights agree with the importance of what they weigh (claim C1)?

Per layer, over units (channels, or positions if the gate has one value per position): the rank agreement of a gate's mean
with the unit's importance, the loss added by taking the unit out while all gates are clamped (``clamped``). A correlation
cannot exceed what noise in both leaves, ceiling = sqrt(reliability of gate * reliability of importance), so the claim is
judged on what is left without it, ``ratio``. Beside it stand the same for shuffled units (the null), and for the unit's mean
absolute activation in place of the gate (a control that is known to say something of importance). Within one image both are
exact.

Source: https://arxiv.org/abs/2106.15067
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from study.registry import STATISTICS
from study.schema import Quantity
from study.seeding import derive_seed
from study.smoothness import estimate
from study.smoothness.clamped import GATES, Layer, ablation, clamped, read_layers, taylor
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.rank_correlation import ceilings, kendall, reliability, spearman, top_overlap, without_noise

KINDS = ("zero", "mean", "taylor")
AGREEMENTS = {"spearman": spearman, "kendall": kendall, "top10": top_overlap}
PREFIX = "attention_importance"
# importance by kind, agreement by measure, and what is compared, in words
_IMPORTANCE = {
    "zero": "importance being the loss added by taking a unit to zero",
    "mean": "importance being the loss added by taking a unit to its mean",
    "taylor": "importance being the loss, to first order, added by taking a unit to zero",
}
AGREEMENT_WORDS = {
    "spearman": "Spearman's rank correlation over units",
    "kendall": "Kendall's tau-b over units",
    "top10": "share of the top tenth of units in common",
}
AGREEMENT_UNITS = {"top10": "fraction of units"}
_OVERALL = {
    "": "of gate and importance",
    "null": "of gate and importance, units shuffled",
    "ceiling": "that noise in gate and importance leaves at most",
    "activation": "of mean absolute activation and importance",
    "per_image": "of gate and importance within an image",
    "per_image_null": "of gate and importance within an image, units shuffled",
    "per_image_activation": "of absolute activation and importance within an image",
}
# Layers with fewer units are left out.
_LEAST_UNITS = 4
_BOOTSTRAPS = 200
# Below this mean ceiling the ratio is not estimable: the ceiling's own error biases what is divided by it.
_LEAST_CEILING = 0.6


@dataclass(frozen=True, kw_only=True)
class AttentionImportanceSettings:
    """``num_halves`` random halvings for reliability, ``num_shuffles`` for the null; ``gates`` as in ``gated_modules``."""

    num_samples: int = 256
    num_halves: int = 100
    num_shuffles: int = 100
    split: str = "test"
    gates: tuple[str, ...] = GATES


def _label(measure: str, part: str) -> str:
    """``kendall_ceiling``, ``kendall``; of Spearman's correlation, which C1 reads, the plain ``ceiling``, ``activation``."""
    short = measure == "spearman" and part not in ("", "null")
    return part if short else "_".join(filter(None, (measure, part)))


def _outcomes(settings: AttentionImportanceSettings) -> list[Quantity]:
    found = []
    for kind, importance in _IMPORTANCE.items():
        for part, words in _OVERALL.items():
            for measure, agreement in AGREEMENT_WORDS.items():
                name, meaning = f"{_label(measure, part)}_{kind}", f"{agreement} {words}, {importance}"
                unit = AGREEMENT_UNITS.get(measure, "correlation")
                found.append(Quantity(name=f"{PREFIX}_{name}", meaning=f"{meaning}; mean over layers", unit=unit))
                if "image" not in part:
                    of_layer = f"{meaning}; attention layer {{layer}} from the input"
                    found.append(Quantity(name=f"{PREFIX}_layer{{layer}}_{name}", meaning=of_layer, unit=unit))
        ratio = f"{AGREEMENT_WORDS['spearman']} of gate and importance over its noise ceiling, {importance}"
        found.append(Quantity(name=f"{PREFIX}_ratio_{kind}", meaning=ratio, unit="ratio"))
    return found


@STATISTICS.register(
    "attention_importance",
    formula="rank agreement over units of mean gate and loss added by taking the unit out, gates clamped; its ceiling",
    source="https://arxiv.org/abs/2106.15067",
    settings=AttentionImportanceSettings,
    outcomes=_outcomes,
    only="networks with attention",
    revision=3,
)
def attention_importance(settings: AttentionImportanceSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Agreement of gate and importance for three importances: ablation to zero, to the mean, and Taylor.

    For each the mean over layers of ``spearman``, ``kendall`` (tau-b) and ``top10`` (share of the top tenth in common). Each
    has a ``_null`` (units shuffled), a noise ``ceiling``, the ``activation`` control (mean absolute activation in the gate's
    place) and ``per_image`` (within an image, mean over images and layers) with null and control of its own: named
    ``kendall_ceiling``, ``top10_activation``, and of Spearman plainly ``ceiling``, ``activation``, ``per_image``. ``ratio``
    is spearman over ceiling, on the scale that noise multiplies (``without_noise``). Then agreement, null, ceiling and
    control per layer, as ``attention_importance_layer3_spearman_zero``, layers counted from the input. Keeps table
    ``by_image``: the agreement within each image and layer.

    Standard errors by 200 resamplings of the images, the same in all layers (``per_image``: over images; ``_null``: over
    shuffles, the images held; a ceiling has none). Not converged if a layer's gates are all equal, or from a single image; the
    ratio also if the mean ceiling is below 0.6. Layers of fewer than four units are left out; a network without gates has no
    estimates. Units: none, all are correlations or shares. Cost: per image and unit two forward passes from its layer on, per
    image one backward pass. Raises ``UserError`` for non-finite outputs, and as ``read_layers`` does.

    Coverage of .95 intervals over samples of images: .91 to .95; of ``activation`` by Taylor .76, as squares have few large
    values and means of them are far off (n = 100 samples of 256 images).
    """
    x, y = context.sample(settings.split, settings.num_samples, f"{PREFIX}/{settings.split}")
    layers = comparable_layers(context, x, settings.gates)
    if not layers:
        return {}
    seed = derive_seed(context.seed, "smoothness", PREFIX)
    estimates: dict[str, Estimate] = {}
    by_layer: dict[str, Estimate] = {}
    by_image: dict[str, Tensor] = {}
    with clamped(layers):
        baseline, first_order = taylor(context, layers, x, y)
        # (N, U) by kind and layer
        importances = {
            kind: [ablation(context, layer, x, y, baseline, mean=kind == "mean") for layer in layers]
            for kind in ("zero", "mean")
        }
    for kind, by_kind in {**importances, "taylor": first_order}.items():
        pairs = list(zip(layers, by_kind, strict=True))
        found = [_over_images(layer, importance, settings, seed) for layer, importance in pairs]
        within = [_within_images(layer, importance, seed) for layer, importance in pairs]
        for name in found[0]:
            estimates[f"{PREFIX}_{name}_{kind}"] = over_layers([each[name] for each in found])
        for name in within[0]:
            estimates[f"{PREFIX}_{name}_{kind}"] = over_layers([estimate.mean(each[name]) for each in within])
        agreement, ceiling = (estimates[f"{PREFIX}_{name}_{kind}"] for name in ("spearman", "ceiling"))
        estimates[f"{PREFIX}_ratio_{kind}"] = _ratio(agreement, ceiling, [layer.num_units for layer in layers])
        for index, each in enumerate(found):
            by_layer |= {f"{PREFIX}_layer{index + 1}_{name}_{kind}": value for name, value in each.items()}
        for measure in AGREEMENTS:
            values = torch.cat([each[_label(measure, "per_image")] for each in within])
            by_image[f"{measure}_{kind}"] = values.float().cpu()
    image = torch.arange(len(x)).repeat(len(layers))
    layer = torch.arange(1, len(layers) + 1).repeat_interleave(len(x))
    context.keep("by_image", {"image": image, "layer": layer, **by_image})
    return estimates | by_layer


def comparable_layers(context: MeasureContext, x: Tensor, gates: tuple[str, ...]) -> list[Layer]:
    """The attention layers on images ``x`` that have enough units for ranks."""
    return [layer for layer in read_layers(context, x, gates) if layer.num_units >= _LEAST_UNITS]


def _over_images(
    layer: Layer, importance: Tensor, settings: AttentionImportanceSettings, seed: int
) -> dict[str, Estimate]:
    """One layer's agreement of means over images, with null, ceiling and control."""
    generator = torch.Generator().manual_seed(seed)
    num_images, num_units = importance.shape
    drawn = resamplings(num_images, generator).to(importance)
    # the means over images and over their resamplings
    gate, activation, wanted = (
        (values.mean(0, keepdim=True), drawn @ values) for values in (layer.gate, layer.activation, importance)
    )
    shuffles = _shuffles(settings.num_shuffles, num_units, generator).to(importance.device)
    kept = [
        reliability(values, settings.num_halves, torch.Generator().manual_seed(seed))
        for values in (layer.gate, importance)
    ]
    ceiling = ceilings(math.sqrt(kept[0] * kept[1]), num_units, generator)
    found: dict[str, Estimate] = {}
    for measure, agree in AGREEMENTS.items():
        null = agree(gate[0].expand(len(shuffles), -1).contiguous(), wanted[0][0][shuffles])
        known = layer.varied and math.isfinite(ceiling[measure])
        each = {
            "": resampled(agree(gate[0], wanted[0]), agree(gate[1], wanted[1]), num_images).provided(layer.varied),
            "null": estimate.mean(null).provided(layer.varied),
            "ceiling": Estimate(ceiling[measure], math.nan, num_images, known),
            "activation": resampled(agree(activation[0], wanted[0]), agree(activation[1], wanted[1]), num_images),
        }
        found |= {_label(measure, part): value for part, value in each.items()}
    return found


def _within_images(layer: Layer, importance: Tensor, seed: int) -> dict[str, Tensor]:
    """One layer's agreement within each image (N,), with null (one shuffle per image) and control."""
    num_images, num_units = importance.shape
    shuffles = _shuffles(num_images, num_units, torch.Generator().manual_seed(seed)).to(importance.device)
    found = {}
    for measure, agree in AGREEMENTS.items():
        found[_label(measure, "per_image")] = agree(layer.gate, importance)
        found[_label(measure, "per_image_null")] = agree(layer.gate, importance.gather(1, shuffles))
        found[_label(measure, "per_image_activation")] = agree(layer.activation, importance)
    return found


def _shuffles(num: int, num_units: int, generator: torch.Generator) -> Tensor:
    return torch.rand((num, num_units), generator=generator, dtype=torch.float64).argsort(1)


def resamplings(num: int, generator: torch.Generator) -> Tensor:
    """Weights (200, num) of a bootstrap: the product with them gives resampled means."""
    drawn = torch.randint(num, (_BOOTSTRAPS, num), generator=generator)
    return torch.zeros((_BOOTSTRAPS, num), dtype=torch.float64).scatter_add_(
        1, drawn, torch.full(drawn.shape, 1 / num).double()
    )


def resampled(value: Tensor, spread: Tensor, num_samples: int) -> Estimate:
    """``value`` (1,) with the root mean square by which its resamplings ``spread`` (B,) differ from it as standard error."""
    # resamplings of one image have no spread
    known = num_samples > 1 and bool(value.isfinite().all() and spread.isfinite().all())
    # about the value, not their mean: a resampled correlation is as much too low on average as the correlation itself is
    stderr = float((spread - value.to(spread)).square().mean().sqrt()) if known else math.nan
    return Estimate(float(value), stderr, num_samples, known, resamplings=spread)


def over_layers(each: Sequence[Estimate]) -> Estimate:
    """The mean over layers; its error is that of the mean, since layers share images, their resamplings and shuffles."""
    value = sum(e.value for e in each) / len(each)
    num, converged = each[0].num_samples, all(e.converged for e in each)
    spread = [e.resamplings for e in each if e.resamplings is not None]
    samples = [e.samples for e in each if e.samples is not None]
    if len(spread) == len(each):
        found = resampled(torch.tensor([value], dtype=torch.float64), torch.stack(spread).mean(0), num)
        return found.provided(converged)
    known = len(samples) == len(each)
    stderr = estimate.mean(torch.stack(samples).mean(0)).stderr if known else math.nan
    return Estimate(value, stderr, num, converged)


def _ratio(spearman_found: Estimate, ceiling: Estimate, num_units: Sequence[int]) -> Estimate:
    """The mean correlation without noise, ignoring the ceiling's own error. An unreliable layer (ceiling 0) counts too."""
    num, spread = ceiling.num_samples, spearman_found.resamplings
    if not ceiling.value > 0 or spread is None:
        return Estimate(math.nan, math.nan, num, False)
    value, spread = (
        without_noise(each, ceiling.value, num_units)
        for each in (torch.tensor([spearman_found.value]).double(), spread)
    )
    known = spearman_found.converged and ceiling.converged and ceiling.value >= _LEAST_CEILING
    return resampled(value, spread, num).provided(known)
