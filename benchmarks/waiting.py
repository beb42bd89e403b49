"""A plug-in for ``cluster_scale``: a merge operator that makes a training wait, as for a GPU that is not there."""

import os
import time

from torch import Tensor

from study.models.merges import Merge
from study.registry import MERGES

SECONDS = float(os.environ.get("FMM_STUDY_WAITING", "0.1"))


@MERGES.register("waiting", formula="x + F, after a while", source="benchmarks/waiting.py")
class Waiting(Merge):
    """Addition that takes ``SECONDS`` in every training step and block."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """Inputs and output (N, C, H, W)."""
        if self.training and f.requires_grad:
            time.sleep(SECONDS)
        return x + f
