"""The budget at which a study stops cleanly, in hours of its GPUs or cores.

Source: https://arxiv.org/abs/1907.10597 (Green AI)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.words.spending import device_hours, trial_seconds, unit
from search_spaces import Resources
from study.errors import UserError
from study.results.ledger import Contents


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """``max_hours`` of GPUs (of cores, where trials hold no GPU) for the whole study; ``price`` per hour, if known."""

    max_hours: float | None = None
    price: float | None = None

    @classmethod
    def of(cls, *, max_hours: float | None, max_money: float | None, price: float | None) -> "Allowance":
        """The smaller of hours and money. Raises ``UserError`` for money without a price."""
        if max_money is not None:
            if not price:
                raise UserError(f"--max-money {max_money:g} needs --price, what an hour of a GPU (or core) costs")
            hours = max_money / price
            max_hours = hours if max_hours is None else min(hours, max_hours)
        return cls(max_hours=max_hours, price=price)


class Purse:
    """Counts what a study spends, from its records; no new group begins once the allowance is used up."""

    def __init__(self, allowance: Allowance, resources: Resources, contents: Contents) -> None:
        self._allowance, self._resources = allowance, resources
        self._seconds = trial_seconds([*contents.replicates.values(), *contents.measures.values()])

    def tell(self, record: Mapping[str, Any]) -> None:
        """Take in a finished record."""
        self._seconds += trial_seconds([record])

    def is_empty(self) -> bool:
        """Whether the allowance is used up."""
        most = self._allowance.max_hours
        return most is not None and device_hours(self._seconds, self._resources) >= most

    @property
    def words(self) -> str:
        """How much of the allowance is spent."""
        hours, most = device_hours(self._seconds, self._resources), self._allowance.max_hours or 0.0
        return f"{hours:,.3g} of {most:,.3g} {unit(self._resources)} hours are spent"
