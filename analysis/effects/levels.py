"""Level claims read on a study: how high an outcome is in the arm's networks, not a difference of two arms.

The unit is the network: replicate r has the mean of its outcome over the arm's cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.effects.compare import MAX_INELIGIBLE
from analysis.effects.obstacles import Obstacle
from analysis.effects.paired import cell_values
from analysis.stats.holm import directed_p
from analysis.stats.signflip import sign_flip_interval, sign_flip_p
from analysis.trials.grid import NO_RECORD, ConfirmGrid, Floats
from analysis.trials.outcomes import ReadOutcome
from analysis.trials.records import agrees
from analysis.words.wording import outcome_text
from search_spaces import LevelClaim, Levels


@dataclass(frozen=True, kw_only=True)
class LevelReading:
    """A level claim on a dataset and one of its arms: one value per network, in order of ``replicates``, and how many had
    none to give.

    ``control`` are the values, network by network, of the claim's positive control: what must lie higher, and lower.
    """

    name: str
    claim: LevelClaim
    arm: Levels
    dataset: str
    values: tuple[float, ...]
    replicates: tuple[int, ...]
    num_left_out: int
    num_planned: int
    alpha: float
    control: tuple[tuple[float, ...], tuple[float, ...]] | None = None

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
    def obstacles(self) -> tuple[Obstacle, ...]:
        """What forbids a verdict."""
        num, waiting = len(self.values) + self.num_left_out, self.num_waiting
        if waiting:
            return (Obstacle("waiting", f"{waiting} of {self.num_planned} networks have not run yet"),)
        if self.num_left_out > MAX_INELIGIBLE * num:
            ineligible = f"{self.num_left_out} of {num} networks are ineligible, more than {MAX_INELIGIBLE:.0%}"
            return (Obstacle("not estimable", f"not estimable: {ineligible}"),)
        return tuple(self._control())

    def _control(self) -> Iterator[Obstacle]:
        """Of a claim with a positive control: whether the lower limit of what must lie higher lies above the other's upper."""
        if self.control is None or self.claim.control is None:
            return
        higher, lower = self.control
        if higher and lower:
            low, high = sign_flip_interval(higher, self.alpha)[0], sign_flip_interval(lower, self.alpha)[1]
            if low > high:
                return
        names = outcome_text(self.claim.control.higher), outcome_text(self.claim.control.lower)
        yield Obstacle("control", f"the positive control does not show: {names[0]} is not surely above {names[1]}")


def level_readings(grid: ConfirmGrid) -> Iterator[LevelReading]:
    """Every level claim on every dataset where one of its arms has a confirmed network, arm by arm.

    A network counts if each of its cells is completed and gave a converged value; the others are left out and counted.
    """
    for name, claim in grid.spec.level_claims.items():
        for arm in claim.all_arms:
            cells = [i for i, cell in enumerate(grid.cells) if agrees(cell.levels, arm)]
            for dataset in dict.fromkeys(grid.cells[i].dataset for i in cells):
                there = [i for i in cells if grid.cells[i].dataset == dataset]
                if (grid.rows[there] != NO_RECORD).any():
                    yield _reading(grid, name, claim, arm, there)


def _reading(grid: ConfirmGrid, name: str, claim: LevelClaim, arm: Levels, cells: list[int]) -> LevelReading:
    def means(outcome: str) -> Floats:
        return np.asarray(cell_values(grid, ReadOutcome(name=outcome, scale="difference"), cells).mean(axis=0))

    whole, values = (grid.rows[cells] != NO_RECORD).all(axis=0), means(claim.outcome)
    used = whole & np.isfinite(values)
    control = [means(outcome) for outcome in (claim.control.higher, claim.control.lower)] if claim.control else []
    higher_lower = [tuple(found[whole & np.isfinite(found)].tolist()) for found in control]
    return LevelReading(
        name=name,
        claim=claim,
        arm=arm,
        dataset=grid.cells[cells[0]].dataset,
        values=tuple(values[used].tolist()),
        replicates=tuple(grid.pairs[used, 1].tolist()),
        num_left_out=int(np.count_nonzero(whole & ~used)),
        num_planned=grid.spec.blocks * grid.spec.replicates,
        alpha=grid.spec.alpha,
        control=(higher_lower[0], higher_lower[1]) if higher_lower else None,
    )
