"""What a worker is given: a replicate to train and measure, as plain values that travel to any machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from study.config import TrialConfig
from study.schema import Phase


@dataclass(frozen=True, kw_only=True)
class Task:
    """One member of a group. ``statistics`` (name -> settings) are what is still to be measured on its weights.

    ``together``: how many members of its group may train as one network.
    """

    config: TrialConfig
    cell: str
    phase: Phase
    block: int
    replicate: int
    number: int
    statistics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    boundary: tuple[str, ...] = ()
    defaulted: bool = False
    checkpoints: str = "none"
    together: int = 1

    def to_plain(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "config": self.config.as_dict(), "boundary": list(self.boundary)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Task":
        """The inverse of ``to_plain``."""
        config = TrialConfig.from_mapping(values["config"])
        return cls(**{**values, "config": config, "boundary": tuple(values["boundary"])})
