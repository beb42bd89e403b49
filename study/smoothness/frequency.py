"""Frequencies of what a network does in between real samples, along straight lines.

At the points i / n of the line between two samples, i = 0 ... n, let c_i be the network's output on some scale, less its
mean over classes. From its chord it differs by g_i = c_i - (1 - i / n) c_0 - (i / n) c_n, which is zero at both ends. So it is
a sum of sines,

    g_i = sum_k b_k sin(pi k i / n), b_k = 2 / n sum_i g_i sin(pi k i / n), both sums from 1 to n - 1

(discrete sine transform of type I). The frequency k counts half waves along the path: 2 is one whole cycle. Its power P_k is
b_k^2, summed over classes; by Parseval sum_i g_i^2 = n / 2 sum_k P_k.

A straight line has no power, a tent 96 / pi^4 = 98.6 % of it at k = 1 and the rest in proportion to k^-4, a jump in proportion
to k^-2. Networks that multiply are also said to learn high frequencies faster (https://arxiv.org/abs/2202.13473,
https://arxiv.org/abs/2209.07736): along paths that would be a larger share of the power at high k, the opposite of smoother.

Source: https://arxiv.org/abs/2202.13473
"""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from study.errors import UserError
from study.registry import STATISTICS
from study.schema import Quantity
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.pairs import KIND_WORDS, KINDS, line_batches, over_kinds
from study.smoothness.scales import SCALE_WORDS, tempered, unit_logits

# True if it depends on the temperature.
_SCALES = {"logits": False, "unit_logits": False, "tempered": True}
# What rounding may change of a logit, over the root mean square of a path's logits, and of a probability.
_ROUNDING = 1e-5
_ROUNDING_OF_ONE = 1e-13
_MOST_LEFT_OUT = 0.1
_VALUES = 2**18  # logits that are transformed at once


@dataclass(frozen=True, kw_only=True)
class FrequencySettings:
    """``num_pairs`` same-class and as many different-class pairs of ``split``; ``num_steps`` steps a path, an even number.

    ``above``: the half waves above which power is counted, each less than half of ``num_steps``. Converged if half the steps
    move shares by at most ``tolerance`` (and the mean log frequency by as much).
    """

    num_pairs: int = 1000
    num_steps: int = 32
    split: str = "test"
    above: tuple[int, ...] = (1, 2, 4, 8)
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        where = "statistic 'frequency': setting 'num_steps' must be"
        if self.num_steps % 2:
            raise UserError(f"{where} even, not {self.num_steps}")
        if self.num_steps <= 2 * max(self.above):
            raise UserError(
                f"{where} more than twice the largest of 'above' ({max(self.above)}), not {self.num_steps}: "
                "of faster waves there would be too few points"
            )


def _outcomes(settings: FrequencySettings) -> list[Quantity]:
    found = []
    for scale in _SCALES:
        for kind in KINDS:
            prefix, where = f"frequency_{scale}_{kind}", f"of {SCALE_WORDS[scale]}, on lines {KIND_WORDS[kind]}"
            found += [
                Quantity(
                    name=f"{prefix}_above_{k}",
                    meaning=f"share of power above {k} half waves a path, {where}",
                    unit="fraction of power",
                    better="lower",
                )
                for k in settings.above
            ]
            found += [
                Quantity(
                    name=f"{prefix}_mean_log",
                    meaning=f"mean natural logarithm of the mean frequency in half waves a path, {where}",
                    unit="natural logarithm",
                    better="lower",
                ),
                Quantity(
                    name=f"{prefix}_eligible",
                    meaning=f"share of pairs whose output leaves its chord by more than rounding, {where}",
                    unit="fraction of pairs",
                ),
            ]
    return found


@STATISTICS.register(
    "frequency",
    formula="share of power above k half waves in the sine series of z(t) - (1 - t) z(0) - t z(1), on lines between samples",
    source="https://arxiv.org/abs/2202.13473",
    settings=FrequencySettings,
    outcomes=_outcomes,
    serves=("path",),
)
def frequency(settings: FrequencySettings, context: MeasureContext) -> dict[str, Estimate]:
    """Shares of power by frequency along the paths of ``path``, as ``frequency_{scale}_{kind}_{name}``. Lower is smoother.

    - ``above_{k}``: mean over pairs of sum_{j > k} P_j / sum_j P_j, for each k of ``above``.
    - ``mean_log``: mean over pairs of log(sum_j j P_j / sum_j P_j), the mean frequency of the power.
    - ``eligible``: share of pairs with any power. A pair whose output differs from its chord by no more than rounding could
      make it (1e-5 of the path's logits, brought to the scale) has no frequency and enters nothing else.

    Scales: ``logits``, of which no share changes when they are multiplied or moved together; ``unit_logits``, whose length is
    held along the path too; ``tempered`` probabilities (temperature fitted on validation). Shares say how fast the output
    turns, not how far: that is ``path``'s.

    Units: shares of power; frequencies in half waves a path, whatever its length; pairs are the same in all cells.
    Not converged if more than a tenth of the pairs is not eligible, or if every second point alone gives a value that differs
    by more than ``tolerance``: waves of k > n half waves are seen as slower ones (2 n - k), and half the steps show it first.
    Standard errors are over images, as in ``path``: in 2,000 simulated samples of 300 pairs, value +- 1.96 of them held the
    truth in 92 % with 60 images and in 93 % with 200. Cost per pair: ``num_steps`` + 1 forward passes, shared with ``path``
    and ``linear_regions`` if pairs and steps are the same. Raises ``IncompleteError`` with the rest if a kind has no pair,
    ``UserError`` if neither has or outputs are not finite.
    """
    return over_kinds(context, settings.split, settings.num_pairs, functools.partial(_estimates, settings, context), {})


def _estimates(settings: FrequencySettings, context: MeasureContext, kind: str, pairs: Tensor) -> dict[str, Estimate]:
    passed = []
    for key, batch, points in line_batches(context, settings.split, pairs, settings.num_steps):
        found = context.shared.get(key) or (context.logits(points().flatten(0, 1)),)
        context.shared.put(key, found)
        passed.append(found[0].view(len(batch), settings.num_steps + 1, -1))
    logits = torch.cat(passed)
    parts: dict[str, list[tuple[Tensor, ...]]] = {scale: [] for scale in _SCALES}
    for z in torch.split(logits, max(1, _VALUES // logits[0].numel())):
        for scale, part in parts.items():
            curve, rounding = _curve(scale, z, context.temperature)
            power = spectrum(curve)
            moved = (settings.num_steps / 2 * power.sum(1)).sqrt()  # Parseval: its norm along a path
            part.append((power, spectrum(curve[:, ::2]), moved > rounding))
    estimates = {}
    for scale, part in parts.items():
        power, coarse, eligible = (torch.cat(each).cpu() for each in zip(*part, strict=True))
        counted = estimate.mean(eligible.double(), pairs)
        trusted = counted.value >= 1 - _MOST_LEFT_OUT and (context.temperature_known or not _SCALES[scale])
        rough = _summaries(coarse, settings.above)
        for name, values in _summaries(power, settings.above).items():
            value = replace(estimate.mean(values[eligible], pairs[eligible]), samples=values.where(eligible, math.nan))
            resolved = abs(value.value - float(rough[name][eligible].mean())) <= settings.tolerance
            estimates[f"frequency_{scale}_{kind}_{name}"] = value.provided(trusted and resolved)
        estimates[f"frequency_{scale}_{kind}_eligible"] = counted
    return estimates


def spectrum(curve: Tensor) -> Tensor:
    """Power (P, n - 1) of the half waves 1 ... n - 1 in ``curve`` (P, n + 1, K) less its chord, summed over classes."""
    n = curve.shape[1] - 1
    t = torch.linspace(0, 1, n + 1, dtype=curve.dtype, device=curve.device)
    g = curve - torch.lerp(curve[:, :1], curve[:, -1:], t[:, None])
    odd = torch.cat(
        [g[:, :-1], -g.flip(1)[:, :-1]], 1
    )  # its Fourier coefficients are n times the sine series', but for signs
    power: Tensor = (torch.fft.rfft(odd, dim=1)[:, 1:-1].abs() / n).square().sum(-1)
    return power


def _curve(scale: str, z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Outputs (P, n + 1, K) on ``scale``, in float64, and what norms (P,) along a path rounding of the logits could have."""
    z = z.double() - z.double().mean(-1, keepdim=True)
    error = _ROUNDING * z.square().mean((1, 2), keepdim=True).sqrt()
    if scale == "unit_logits":
        curve, error = unit_logits(z), error / z.norm(dim=-1, keepdim=True)
    elif scale == "tempered":
        curve = tempered(z, temperature)
        # dp_k is at most p_k (1 - p_k) times what is added to one logit and taken from the others
        error = 2 * curve * (1 - curve) * error / temperature + _ROUNDING_OF_ONE
    else:
        curve = z
    return curve, error.expand_as(curve).flatten(1).norm(dim=1)


def _summaries(power: Tensor, above: tuple[int, ...]) -> dict[str, Tensor]:
    """Shares above and log mean frequency of single paths, each (P,), from ``power`` (P, n - 1); nan without power."""
    share = power / power.sum(1, keepdim=True)
    k = torch.arange(1, power.shape[1] + 1, dtype=share.dtype, device=share.device)
    shares = {f"above_{least}": share[:, least:].sum(1) for least in above}
    return shares | {"mean_log": (share @ k).log()}
