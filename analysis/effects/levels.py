"""https://arxiv.org/abs/2106.15067, claim C1: a claim on how high an outcome is, not on a difference of two arms.

The unit is the network: replicate r has the mean over the arm's cells of its outcome. The interval of the mean inverts the
sign-flip test as for differences (values symmetric about their centre). ``supported`` if the upper limit lies below
``below``, ``refuted`` if the lower one lies above ``above``, else ``undecided``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from analysis.effects.compare import MAX_INELIGIBLE
from analysis.stats.holm import directed_p
from analysis.stats.rule import Rule
from analysis.stats.signflip import sign_flip_p
from analysis.stats.verdicts import Verdict
from analysis.trials.table import rows_of, setting_column
from search_spaces import LevelClaim, Spec


@dataclass(frozen=True, kw_only=True)
class LevelReading:
    """A level claim on a dataset: one value a network, in order of ``replicates``, and how many had none to give."""

    unit: ClassVar[str] = "network"
    name: str
    claim: LevelClaim
    dataset: str
    values: tuple[float, ...]
    replicates: tuple[int, ...]
    num_left_out: int
    num_planned: int

    @property
    def p(self) -> float | None:
        """The directed p of "the mean is not below ``below``"; ``None`` without values."""
        if not self.values:
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
        found = [f"{waiting} of {self.num_planned} networks have not run yet"] * bool(waiting)
        if not waiting and self.num_left_out > MAX_INELIGIBLE * num:
            found.append(f"{self.num_left_out} of {num} networks are ineligible, more than {MAX_INELIGIBLE:.0%}")
        return tuple(found)

    def limits(self, level: float, rule: Rule) -> tuple[float, float] | None:
        """The interval of the mean at ``level``; ``None`` without values."""
        return rule.interval(self.values, self.replicates, level) if self.values else None

    def verdict(self, limits: tuple[float, float] | None, *, num_blocks: int, held_back: bool) -> Verdict:
        """The verdict from the interval's limits; ``held_back`` says that the study cannot be believed."""
        if num_blocks == 1:
            return "no verdict"
        if held_back or self.obstacles or limits is None:
            return "undecided"
        if limits[1] < self.claim.below:
            return "supported"
        return "refuted" if limits[0] > self.claim.above else "undecided"


def level_readings(spec: Spec, trials: pa.Table) -> list[LevelReading]:
    """Every level claim on every dataset where its arm has a confirmed network.

    A network counts if each of its cells is completed and gave a converged value; the others are left out and counted.
    """
    rows = rows_of(trials, phase="confirm") if spec.level_claims else []
    found = []
    for name, claim in spec.level_claims.items():
        arm = [row for row in rows if _holds(row, claim.arm)]
        for dataset in dict.fromkeys(row["dataset"] for row in arm):
            found.append(_reading(spec, name, claim, dataset, [row for row in arm if row["dataset"] == dataset]))
    return found


def level_parts(readings: Sequence[LevelReading], dataset: str) -> dict[str, list[float | None]]:
    """Claim -> its directed p as its only part: what Holm's family takes, beside the claims on differences."""
    return {
        reading.name: [None if reading.obstacles else reading.p] for reading in readings if reading.dataset == dataset
    }


def _holds(row: Mapping[str, Any], arm: Mapping[str, Any]) -> bool:
    return all(row.get(setting_column(name)) == level for name, level in arm.items())


def _reading(spec: Spec, name: str, claim: LevelClaim, dataset: str, rows: list[dict[str, Any]]) -> LevelReading:
    num_cells = sum(
        all(cell.get(factor) == level for factor, level in claim.arm.items())
        and cell.get("dataset", spec.fixed.get("dataset")) == dataset
        for cell in spec.cells()
    )
    replicates: dict[int, list[float | None]] = {}
    for row in rows:
        usable = row["state"] == "completed" and bool(row.get(f"{claim.outcome}_converged"))
        replicates.setdefault(row["replicate"], []).append(row.get(claim.outcome) if usable else None)
    whole = {r: values for r, values in sorted(replicates.items()) if len(values) == num_cells}
    means = {
        r: float(np.mean([v for v in values if v is not None])) for r, values in whole.items() if None not in values
    }
    return LevelReading(
        name=name,
        claim=claim,
        dataset=dataset,
        values=tuple(means.values()),
        replicates=tuple(means),
        num_left_out=len(whole) - len(means),
        num_planned=spec.blocks * spec.replicates,
    )
