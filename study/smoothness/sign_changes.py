"""https://arxiv.org/abs/1802.08760 (Novak et al. 2018, section 3.2): sign changes of ReLUs along paths, one ReLU at a time."""

import itertools

import torch
from torch import Tensor

from study.errors import UserError
from study.smoothness.context import MeasureContext
from study.smoothness.relu_signs import ReluSigns


class SignChanges:
    """Along P paths at once, each (P,) float64: ``transitions`` from point to point, ``coarse`` at every second point, ``net``
    between the ends; ``units`` is the number of ReLUs.

    Of each ReLU the signs at a path's first and last two points are kept, so that points may come a few at a time.
    """

    def __init__(self, num_paths: int, device: torch.device) -> None:
        self.transitions, self.coarse = (torch.zeros(num_paths, dtype=torch.float64, device=device) for _ in range(2))
        self.units = 0
        self._num_points = 0
        self._first: list[Tensor] = []
        self._last: list[Tensor] = []

    @torch.no_grad()
    def walk(self, context: MeasureContext, points: Tensor) -> Tensor:
        """Go on along the paths by ``points`` (P, S, ...) in one forward pass; their logits (P * S, K).

        Raises ``UserError`` for non-finite outputs, and where the network has no ReLU.
        """
        number = itertools.count()
        flat, shape = points.flatten(0, 1), (*points.shape[:2], -1)
        with ReluSigns(len(flat), lambda signs: self._see(next(number), signs.view(shape))):
            logits = context.checked(context.model(flat))
        if not self._first:
            raise UserError(
                "the network has no ReLU (nor leaky or parametric ReLU, nor ReLU6): it has no linear regions to count"
            )
        self._num_points += points.shape[1]
        return logits

    @property
    def net(self) -> Tensor:
        """Changes between the first and the last point."""
        each = [(first != last[:, -1]).sum(1) for first, last in zip(self._first, self._last, strict=True)]
        return torch.stack(each).sum(0).double()

    def _see(self, number: int, signs: Tensor) -> None:
        """Signs (P, S, U) of a ReLU at the next points."""
        if not self._num_points:
            self._first.append(signs[:, 0].clone())
            self._last.append(signs[:, :0])
            self.units += signs.shape[2]
        before = self._last[number]
        seen = torch.cat([before, signs], 1)
        new, known = self._num_points, before.shape[1]
        steps = seen[:, max(0, known - 1) :]
        self.transitions += (steps[:, 1:] != steps[:, :-1]).sum((1, 2))
        # points of even number, from the second of them on, against the one two before
        ends = [known + index - new for index in range(max(2, new), new + signs.shape[1]) if index % 2 == 0]
        if ends:
            self.coarse += (seen[:, ends] != seen[:, [end - 2 for end in ends]]).sum((1, 2))
        self._last[number] = seen[:, -2:].clone()
