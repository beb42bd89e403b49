"""https://arxiv.org/abs/1901.10159 (Ghorbani et al. 2019): stochastic Lanczos quadrature, the density of a spectrum.

A Lanczos run from a random probe is a quadrature of the probe's spectral measure; its mean over probes is the density
(1/n) sum_i delta(t - lambda_i). Every function takes the runs of P probes and gives one value a probe, or a curve.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from study.smoothness.lanczos import Ritz

_POINTS = 256
# standard deviations of the kernel that the curve goes on beyond the outermost Ritz values
_MARGIN = 4.0


def moment(runs: Sequence[Ritz], power: int) -> Tensor:
    """(P,): integral of lambda^power over each probe's measure. Exact up to power 2m - 1 of m products."""
    return torch.stack([(run.weights * run.values**power).sum() for run in runs])


def mass(runs: Sequence[Ritz], above: float, up_to: float) -> Tensor:
    """(P,): each probe's share of eigenvalues in [above, up_to), of 1."""
    return torch.stack([run.weights[(run.values >= above) & (run.values < up_to)].sum() for run in runs])


def curve(runs: Sequence[Ritz], num_steps: int) -> dict[str, Tensor]:
    """The density on 256 equal steps of ``eigenvalue``: ``density`` and its ``stderr`` over probes, each (256,).

    Every node is a normal distribution of standard deviation (largest - smallest Ritz value) / ``num_steps``: what that many
    products can tell apart.
    """
    nodes = torch.cat([run.values for run in runs])
    low, high = float(nodes.min()), float(nodes.max())
    # where all eigenvalues are one, a width that is seen beside it
    width = (high - low) / num_steps or max(abs(high), 1.0) / num_steps
    points = torch.linspace(low - _MARGIN * width, high + _MARGIN * width, _POINTS, dtype=torch.float64)
    each = torch.stack([_smoothed(run, points, width) for run in runs])
    stderr = each.std(0, correction=1) / math.sqrt(len(runs)) if len(runs) > 1 else torch.full_like(points, math.nan)
    return {"eigenvalue": points, "density": each.mean(0), "stderr": stderr}


def _smoothed(run: Ritz, points: Tensor, width: float) -> Tensor:
    distance = (points[:, None] - run.values.cpu()) / width
    return (run.weights.cpu() * torch.exp(-(distance**2) / 2)).sum(1) / (width * math.sqrt(2 * math.pi))
