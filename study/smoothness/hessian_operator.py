"""https://doi.org/10.1162/neco.1994.6.1.147 (Pearlmutter 1994): the Hessian of the training loss in the weights, as products.

H v is the gradient of (gradient . v). The gradient's graph is built once and kept where all images fit in one chunk; else
once a chunk and product, for memory's sake.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from study.errors import UserError
from study.smoothness.context import MeasureContext


class LossHessian:
    """Hessian of the mean cross-entropy (nats) on images ``x`` with labels ``y``, in the parameters that are trained.

    Call it with a vector (num_params,). In evaluation mode: batch norm's statistics are constants. Raises ``UserError`` for
    a network without trained parameters and, when called, for outputs that are not finite.
    """

    def __init__(self, context: MeasureContext, x: Tensor, y: Tensor) -> None:
        self._context = context
        self._chunks = list(zip(torch.split(x, context.chunk), torch.split(y, context.chunk), strict=True))
        self._num_images = len(x)
        self._parameters = [p for p in context.model.parameters() if p.requires_grad]
        if not self._parameters:
            raise UserError("the network has no trained parameters: its loss has no Hessian in them")
        self._kept: list[Tensor] | None = None
        self.num_params = sum(p.numel() for p in self._parameters)
        self.num_products = 0

    def __call__(self, vector: Tensor) -> Tensor:
        """H ``vector``, (num_params,), in the parameters' dtype."""
        self.num_products += 1
        parts = torch.split(vector, [p.numel() for p in self._parameters])
        directions = [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]
        total = torch.zeros_like(vector)
        for gradients in self._gradients():
            with torch.enable_grad():
                along = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
            assert isinstance(along, Tensor)
            if not along.requires_grad:  # the gradient does not depend on the weights: no curvature
                continue
            found = torch.autograd.grad(
                along, self._parameters, retain_graph=self._kept is not None, materialize_grads=True
            )
            total += torch.cat([part.flatten() for part in found])
        return total

    def _gradients(self) -> Iterator[list[Tensor]]:
        if self._kept is not None:
            yield self._kept
            return
        for x, y in self._chunks:
            with torch.enable_grad():
                logits = self._context.checked(self._context.model(x))
                loss = functional.cross_entropy(logits, y, reduction="sum") / self._num_images
                gradients = list(torch.autograd.grad(loss, self._parameters, create_graph=True, materialize_grads=True))
            if len(self._chunks) == 1:
                self._kept = gradients
            yield gradients
