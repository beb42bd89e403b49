"""https://arxiv.org/abs/1802.08760 (Novak et al. 2018): the norm of the input-output Jacobian at real samples.

The exact Jacobian of the logits J = dz/dx comes from one backward pass a class for a whole batch; the other scales
follow in closed form: dp_k = p_k (dz_k - sum_j p_j dz_j), and for z~ = c / r, with c = z - mean z and r = norm(c),
dz~ = (dc - z~ (z~ . dc)) / r.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from study.registry import STATISTICS
from study.smoothness import estimate
from study.smoothness.context import MeasureContext
from study.smoothness.estimate import Estimate
from study.smoothness.scales import probabilities, unit_logits

_SCALES = ("probabilities", "logits", "unit_logits")
_MOMENTS = ("mean", "mean_log", "rms")
# Entries of Jacobians held at once on the CPU, where memory that is out is no error but the end of the process.
_MOST_ON_CPU = 2**27


@dataclass(frozen=True, kw_only=True)
class InputJacobianSettings:
    """``num_samples`` images of ``split``."""

    num_samples: int = 256
    split: str = "test"


def _names(settings: InputJacobianSettings) -> list[str]:
    return [f"jacobian_{scale}_{moment}" for scale in _SCALES for moment in _MOMENTS]


@STATISTICS.register(
    "input_jacobian",
    formula="Frobenius norm of dp/dx, dz/dx and d(unit logits)/dx: mean, mean log, root mean square",
    source="https://arxiv.org/abs/1802.08760",
    settings=InputJacobianSettings,
    names=_names,
)
def input_jacobian(settings: InputJacobianSettings, context: MeasureContext) -> dict[str, Estimate]:
    """Mean, mean log and root mean square over samples of the input Jacobian's Frobenius norm, on three scales.

    Units: output per unit of pixel intensity in [0, 1]. Standard errors over samples (independent images); a sample
    whose Jacobian is exactly zero leaves ``mean_log`` nan, not converged. Cost a sample: 1 forward and K backwards,
    shared by the scales; memory for ``chunk * K * pixels`` float64 numbers, a few times (2^27 at the most on the CPU).
    Raises ``UserError`` for non-finite outputs.
    """
    x, _ = context.sample(settings.split, settings.num_samples, f"input_jacobian/{settings.split}")
    size = context.chunk
    if x.device.type == "cpu":
        size = max(1, min(size, _MOST_ON_CPU // (context.num_classes * x[0].numel())))
    parts = [_norms(context, part) for part in torch.split(x, size)]
    estimates = {}
    for scale in _SCALES:
        norms = torch.cat([part[scale] for part in parts])
        estimates[f"jacobian_{scale}_mean"] = estimate.mean(norms)
        estimates[f"jacobian_{scale}_mean_log"] = estimate.mean(norms.log())
        estimates[f"jacobian_{scale}_rms"] = estimate.root_mean_square(norms)
    return estimates


def _norms(context: MeasureContext, x: Tensor) -> dict[str, Tensor]:
    """Frobenius norms (N,) by scale.

    In evaluation mode row n of the output depends on image n only (``measure`` checks),
    so the gradient of a column's sum holds every sample's own gradient.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = context.checked(context.model(x))
        columns = z.sum(0)
        rows = [
            torch.autograd.grad(column, x, retain_graph=k + 1 < len(columns))[0] for k, column in enumerate(columns)
        ]
    jacobian = torch.stack([row.flatten(1) for row in rows], 1).double()  # (N, K, pixels)
    z = z.detach().double()
    p, unit = probabilities(z)[..., None], unit_logits(z)[..., None]
    radius = (z - z.mean(-1, keepdim=True)).norm(dim=-1)
    centred = jacobian - jacobian.mean(1, keepdim=True)
    # dp does not change when all rows move alike; with the predicted class's row at zero, 1 - p is never subtracted
    top = z.argmax(-1)[:, None, None].expand(-1, 1, jacobian.shape[2])
    shifted = jacobian - jacobian.gather(1, top)
    return {
        "logits": _frobenius(jacobian),
        "probabilities": _frobenius(p * (shifted - (p * shifted).sum(1, keepdim=True))),
        # equal logits (radius 0): z~ jumps there and has no derivative; what the division gives is not finite
        "unit_logits": _frobenius(centred - unit * (unit * centred).sum(1, keepdim=True)) / radius,
    }


def _frobenius(matrices: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2))
    return norms
