"""Norms of the input-output Jacobian, from its inner products.

The exact Jacobian of the logits J = dz/dx takes one backward pass per class for a block of images. A scale f(z) has the
Jacobian D J with D = df/dz: D = diag(p) - p p^T for probabilities and (I - 1 1^T / K - z~ z~^T) / r for unit logits z~ = c /
r, c = z - mean z, r = norm(c). Frobenius and spectral norm of D J are those of the K x K matrix M = D J J^T D^T: norm_F^2 =
trace M, norm_2^2 = its largest eigenvalue. So J itself need not be kept.

Neither D changes when the same is added to all rows of J. Rows are taken relative to the predicted class's, J_k - J_top, so no
1 - p is subtracted where a prediction is saturated; in place of its own difference, zero, stands J_top.

Source: https://arxiv.org/abs/1802.08760
"""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from study.schema import Quantity
from study.smoothness.context import MeasureContext
from study.smoothness.memory import Images
from study.smoothness.scales import SCALE_WORDS, probabilities, unit_logits

Linear = Callable[[Tensor], Tensor]

SCALES = ("probabilities", "logits", "unit_logits")
# Entries of Jacobians held at once on the CPU, where running out of memory ends the process.
_MOST_ON_CPU = 2**28
# A block's graph takes several times the memory of a forward pass.
_GRAPH = 4
# Pixels whose products are summed at once, in float64.
_PIXELS = 4096
# Of unit logits, what is below this share of the logits' Jacobian (over their length) is float32's rounding, and no movement.
_ROUNDING = 16 * torch.finfo(torch.float32).eps


def norm_quantities(prefix: str, norm: str, moments: Mapping[str, str]) -> list[Quantity]:
    """The estimates of a statistic that gives ``moments`` (name -> words) of a ``norm`` of each scale's Jacobian."""
    return [
        Quantity(
            name=f"{prefix}_{scale}_{moment}",
            meaning=f"{words} over images of the {norm} norm of the input Jacobian of {SCALE_WORDS[scale]}",
            unit="natural logarithm" if moment == "mean_log" else "output per unit of pixel intensity",
            better="lower",
        )
        for scale in SCALES
        for moment, words in moments.items()
    ]


def jacobian_norms(
    context: MeasureContext, split: str, num: int, norm: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """``norm`` (``frobenius`` or ``spectral``) of each scale's Jacobian at the first ``num`` near images of ``split``, (N,).

    Float64 on the CPU; for unit logits not finite where all logits are equal, and 0 where they move by rounding alone.
    Products are shared by the statistics of a suite: blocks of images begin and end at the same places for any ``num``, so
    the last one may hold more than is asked for. Cost per image: 1 forward and K backward passes. Memory: ``chunk`` / 4
    graphs and Jacobians. Raises ``UserError`` for non-finite outputs.
    """
    order = context.near_order(split)
    x, _ = context.indexed(split)
    size = max(1, context.chunk // _GRAPH)
    if x.device.type == "cpu":
        size = max(1, min(size, _MOST_ON_CPU // (context.num_classes * x[0].numel())))
    num, found = min(num, len(x)), []
    for start in range(0, num, size):
        index = order[start : start + size].to(x.device)
        z, gram = context.shared.once(("gram", split, start, size), functools.partial(_products, context, x, index))
        moved = {scale: norm(_moved(scale, z, gram)) for scale in SCALES}
        still = moved["unit_logits"] <= _rounding(z, gram)
        found.append(moved | {"unit_logits": moved["unit_logits"].masked_fill(still, 0.0)})
    return {scale: torch.cat([each[scale] for each in found])[:num] for scale in SCALES}


def frobenius(products: Tensor) -> Tensor:
    """Frobenius norms (N,) of matrices with inner products of rows ``products`` (N, K, K)."""
    norms: Tensor = products.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    return norms


def spectral(products: Tensor) -> Tensor:
    """Spectral norms (N,), nan where products are not finite."""
    finite = products.isfinite().all(2).all(1)
    # exactly symmetric but for rounding, of which eigvalsh takes one half
    largest = torch.linalg.eigvalsh(products.where(finite[:, None, None], 0.0))[:, -1]
    norms: Tensor = largest.clamp_min(0).sqrt().where(finite, torch.nan)
    return norms


def _products(context: MeasureContext, images: Images, index: Tensor) -> tuple[Tensor, Tensor]:
    """At ``images[index]``: logits (N, K), and inner products (N, K, K) of J's rows relative to the predicted class's.

    Float64 on the CPU. In evaluation mode row n of the output depends on image n only (``measure`` checks), so the gradient
    of a column's sum holds each image's own gradient.
    """
    with torch.enable_grad():
        x = images[index].detach().requires_grad_()
        z = context.checked(context.model(x))
        columns = z.sum(0)
        rows = torch.stack(
            [
                torch.autograd.grad(column, x, retain_graph=k + 1 < len(columns))[0].flatten(1)
                for k, column in enumerate(columns)
            ],
            1,
        )  # (N, K, pixels)
    z = z.detach().double()
    top = z.argmax(-1)
    total = z.new_zeros(len(z), z.shape[1], z.shape[1])
    for part in torch.split(rows, _PIXELS, dim=2):
        at = part.double()
        of_top = at[torch.arange(len(at), device=at.device), top][:, None]
        is_top = _is_top(z)[..., None]
        at = torch.where(is_top, at, at - of_top)
        total += at @ at.mT
    return z.cpu(), total.cpu()


def differentials(z: Tensor) -> dict[str, Linear]:
    """D of each scale at logits ``z`` (N, K), as a map of (N, K, M): M vectors per sample."""
    p, unit = probabilities(z)[..., None], unit_logits(z)[..., None]
    radius = (z - z.mean(-1, keepdim=True)).norm(dim=-1)[:, None, None]
    top = z.argmax(-1)[:, None, None]

    def of_probabilities(w: Tensor) -> Tensor:
        w = w - w.gather(1, top.expand(-1, 1, w.shape[2]))  # changes nothing but rounding: 1 - p is never subtracted
        moved: Tensor = p * (w - (p * w).sum(1, keepdim=True))
        return moved

    def of_unit_logits(w: Tensor) -> Tensor:
        w = w - w.mean(1, keepdim=True)
        moved: Tensor = (w - unit * (unit * w).sum(1, keepdim=True)) / radius
        return moved

    return {"probabilities": of_probabilities, "logits": lambda w: w, "unit_logits": of_unit_logits}


def _moved(scale: str, z: Tensor, gram: Tensor) -> Tensor:
    """M = D J J^T D^T (N, K, K) of a scale."""
    is_top = _is_top(z)[..., None]

    def apply(w: Tensor) -> Tensor:
        if scale == "logits":  # J_k = (J_k - J_top) + J_top
            return torch.where(is_top, w, w + w.where(is_top, 0.0).sum(1, keepdim=True))
        return differentials(z)[scale](w.masked_fill(is_top, 0.0))  # its own difference is zero

    return apply(apply(gram).mT)


def _rounding(z: Tensor, gram: Tensor) -> Tensor:
    """Length (N,) below which the Jacobian of unit logits is rounding: a share of what the logits' own is at most, over r."""
    squares = gram.diagonal(dim1=1, dim2=2)  # of differences from the predicted class's row, and of that row itself
    most = squares.sum(1) + (z.shape[1] - 1) * (squares * _is_top(z)).sum(1)
    length: Tensor = most.sqrt() / (z - z.mean(-1, keepdim=True)).norm(dim=-1)
    return _ROUNDING * length


def _is_top(z: Tensor) -> Tensor:
    return torch.arange(z.shape[1], device=z.device) == z.argmax(-1, keepdim=True)
