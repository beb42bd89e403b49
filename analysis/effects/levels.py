"""Level claims read on a study: how high an outcome is in the arm's networks, not a difference of two arms.

The unit is the network: replicate r has the mean of its outcome over the arm's cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.effects.compare import MAX_INELIGIBLE
from analysis.effects.paired import cell_values
from analysis.stats.holm import directed_p
from analysis.stats.signflip import sign_flip_p
from analysis.trials.grid import NO_RECORD, ConfirmGrid
from analysis.trials.outcomes import ReadOutcome
from analysis.trials.records import agrees
from search_spaces import LevelClaim


@dataclass(frozen=True, kw_only=True)
class LevelReading:
    """A level claim on a dataset: one value per network, in order of ``replicates``, and how many had none to give."""

    name: str
    claim: LevelClaim
    dataset: str
    values: tuple[float, ...]
    replicates: tuple[int, ...]
    num_left_out: int
    num_planned: int

    @property
    def p(self) -> float | None:
        """The directed p of "the mean is not below ``below``"; ``None`` where there is no verdict on it."""
        if not self.values or self.obstacles:
            return None
        shifted = np.array(self.values) - self.claim.below
        return directed_p(sign_flip_p(shifted), float(shifted.mean()), "lower")

    @property
    def num_waiting(self) -> int:
        """Networks planned and not run yet."""
        return max(self.num_planned - len(self.values) - self.num_left_out, 0)

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What forbids a verdict, in words."""
        num, waiting = len(self.values) + self.num_left_out, self.num_waiting
        if waiting:
            return (f"{waiting} of {self.num_planned} networks have not run yet",)
        if self.num_left_out > MAX_INELIGIBLE * num:
            return (f"{self.num_left_out} of {num} networks are ineligible, more than {MAX_INELIGIBLE:.0%}",)
        return ()


def level_readings(grid: ConfirmGrid) -> Iterator[LevelReading]:
    """Every level claim on every dataset where its arm has a confirmed network.

    A network counts if each of its cells is completed and gave a converged value; the others are left out and counted.
    """
    for name, claim in grid.spec.level_claims.items():
        outcome = ReadOutcome(name=claim.outcome, scale="difference")
        arm = [i for i, cell in enumerate(grid.cells) if agrees(cell.levels, claim.arm)]
        for dataset in dict.fromkeys(grid.cells[i].dataset for i in arm):
            cells = [i for i in arm if grid.cells[i].dataset == dataset]
            there = grid.rows[cells] != NO_RECORD
            if not there.any():
                continue
            whole, means = there.all(axis=0), cell_values(grid, outcome, cells).mean(axis=0)
            used = whole & np.isfinite(means)
            yield LevelReading(
                name=name,
                claim=claim,
                dataset=dataset,
                values=tuple(means[used].tolist()),
                replicates=tuple(grid.pairs[used, 1].tolist()),
                num_left_out=int(np.count_nonzero(whole & ~used)),
                num_planned=grid.spec.blocks * grid.spec.replicates,
            )
