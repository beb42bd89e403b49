"""Importance as Shapley values, against attention weights.

Ablation takes a unit out of the whole network, so of two units that can replace each other neither seems to matter. The
Shapley value of a unit is what it adds to the log-probability of the true class, averaged over all orders of adding units:
phi_u = E over orders [v(those before u, and u) - v(those before u)], v(S) the log-probability if the units not in S are zero
and all gates are at their mean (``clamped``). Then sum over u of phi_u = v(all) - v(none). captum evaluates sampled orders.

Source: https://doi.org/10.1016/j.cor.2008.04.004
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from study.errors import UserError
from study.registry import STATISTICS
from study.schema import Quantity
from study.seeding import derive_seed
from study.smoothness.attention_importance import (
    AGREEMENT_UNITS,
    AGREEMENT_WORDS,
    AGREEMENTS,
    comparable_layers,
    over_layers,
    resampled,
    resamplings,
)
from study.smoothness.clamped import GATES, Layer, ablation, clamped, only_units, taylor
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.rank_correlation import reliability, spearman

PREFIX = "attention_shapley"
_HALVES = 20
# Below this reliability the ranks depend on the sampled orders as much as on the units.
_LEAST_RELIABILITY = 0.8
_EACH = (*AGREEMENTS, "activation", "ablation", "reliability")


@dataclass(frozen=True, kw_only=True)
class AttentionShapleySettings:
    """``num_samples`` images of ``split``, ``num_orders`` random orders of a layer's units; ``gates`` as elsewhere."""

    num_samples: int = 32
    num_orders: int = 32
    split: str = "test"
    gates: tuple[str, ...] = GATES


def _outcomes(settings: AttentionShapleySettings) -> list[Quantity]:
    words = {
        name: (f"{agreement} of gate and Shapley value", AGREEMENT_UNITS.get(name, "correlation"))
        for name, agreement in AGREEMENT_WORDS.items()
    }
    rank = AGREEMENT_WORDS["spearman"]
    words["activation"] = f"{rank} of mean absolute activation and Shapley value", "correlation"
    words["ablation"] = f"{rank} of Shapley value and loss added by taking a unit to zero", "correlation"
    words["reliability"] = "reliability of the ranks of Shapley values over sampled orders", "correlation"
    found = [
        Quantity(name=f"{PREFIX}_{name}", meaning=f"{words[name][0]}; mean over layers", unit=words[name][1])
        for name in _EACH
    ]
    of_layer = f"{words['spearman'][0]}; attention layer {{layer}} from the input"
    return [*found, Quantity(name=f"{PREFIX}_layer{{layer}}_spearman", meaning=of_layer, unit="correlation")]


@STATISTICS.register(
    "attention_shapley",
    formula="rank agreement over units of mean gate and Shapley value of the true class's log-probability, gates clamped",
    source="https://doi.org/10.1016/j.cor.2008.04.004",
    settings=AttentionShapleySettings,
    outcomes=_outcomes,
    only="networks with attention",
    revision=2,
)
def attention_shapley(settings: AttentionShapleySettings, context: MeasureContext) -> dict[str, Estimate]:
    """Agreement of gate and sampled Shapley value: means over layers, then each layer's Spearman correlation.

    ``spearman``, ``kendall`` and ``top10`` of gate and value; Spearman of the value with mean absolute ``activation`` and with
    ``ablation`` to zero on the same images; ``reliability`` of the values' ranks over orders (split halves, Spearman-Brown),
    without standard error. Standard errors by 200 resamplings of images, the same in all layers, and of orders together. Not
    converged if the reliability is below .8 (increase ``num_orders``) or gates are all equal. Layers are those of
    ``attention_importance``. Units: none, all are correlations or shares. Cost per unit: ``num_samples * num_orders`` forward
    passes. Raises ``UserError`` without captum, for non-finite outputs, and as ``read_layers``.

    Coverage of .95 intervals over samples of images, by t of 31 degrees: .86 to .96 (n = 50 samples of 32 images): a
    correlation from so few images is too low, and its error is as rough.
    """
    x, y = context.sample(settings.split, settings.num_samples, f"{PREFIX}/{settings.split}")
    layers = comparable_layers(context, x, settings.gates)
    found = []
    images = resamplings(len(x), context.generator(f"{PREFIX}/images")).to(x.device)
    with clamped(layers):
        baseline = taylor(context, layers, x, y)[0] if layers else x
        for index, layer in enumerate(layers):
            seed = derive_seed(context.seed, "smoothness", PREFIX, index)
            orders = random_orders(layer.num_units, settings.num_orders, seed)
            values = shapley(context, layer, x, y, orders)
            ablated = ablation(context, layer, x, y, baseline, mean=False)
            found.append(_agreement(layer, values, ablated, images, seed))
    if not found:
        return {}
    overall = {f"{PREFIX}_{name}": over_layers([each[name] for each in found]) for name in _EACH}
    return overall | {f"{PREFIX}_layer{i + 1}_spearman": each["spearman"] for i, each in enumerate(found)}


def random_orders(num_units: int, num: int, seed: int) -> list[list[int]]:
    """``num`` random orders of ``num_units`` units."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(num_units, generator=generator).tolist() for _ in range(num)]


@torch.no_grad()
def shapley(context: MeasureContext, layer: Layer, x: Tensor, y: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """What each unit of ``layer`` adds to the true class's log-probability, by order and image: (len(orders), N, U), nats.

    Its mean over orders is the sampled Shapley value; over all U! orders it is exact. Each order's values sum to v(all) -
    v(none) exactly. Call it with gates ``clamped``. Raises ``UserError`` without captum.
    """
    try:
        from captum.attr import ShapleyValueSampling
    except ImportError:
        raise UserError("statistic 'attention_shapley' needs captum: pip install 'fmm-study[shapley]'") from None

    def log_probability(present: Tensor, image: Tensor) -> Tensor:
        with only_units(layer, present):
            logits = context.checked(context.model(x[image]))
        return -functional.cross_entropy(logits.double(), y[image], reduction="none")

    sampler = ShapleyValueSampling(log_probability)
    found = []
    for order in orders:
        # in place of captum's draws from the global generator
        sampler.permutation_generator = lambda num_units, num_orders, order=order: [order]
        parts = []
        for image in torch.split(torch.arange(len(x), device=x.device), context.chunk):
            present = torch.ones((len(image), layer.num_units), device=x.device)
            settings = {"n_samples": 1, "perturbations_per_eval": max(1, context.chunk // len(image))}
            parts.append(sampler.attribute(present, additional_forward_args=image, **settings).double())
        found.append(torch.cat(parts))
    return torch.stack(found)


def _agreement(layer: Layer, values: Tensor, ablated: Tensor, images: Tensor, seed: int) -> dict[str, Estimate]:
    """One layer's estimates, from Shapley values by order and image (R, N, U); ``images`` are resamplings of these."""
    generator = torch.Generator().manual_seed(seed)
    num_orders, num_images, _ = values.shape
    orders = resamplings(num_orders, generator).to(values)
    kept = reliability(values.mean(1), _HALVES, generator)
    drawn = torch.einsum("br,bn,rnu->bu", orders, images, values)
    mean = values.mean((0, 1))[None]

    def against(agree: Callable[[Tensor, Tensor], Tensor], other: Tensor) -> Estimate:
        value = agree(other.mean(0, keepdim=True), mean)
        return resampled(value, agree(images @ other, drawn), num_images).provided(kept >= _LEAST_RELIABILITY)

    found = {name: against(agree, layer.gate).provided(layer.varied) for name, agree in AGREEMENTS.items()}
    return found | {
        "activation": against(spearman, layer.activation),
        "ablation": against(spearman, ablated),
        "reliability": Estimate(kept, math.nan, num_orders, kept >= _LEAST_RELIABILITY),
    }
