"""What a worker is given: a replicate to train and measure, as plain values that can be sent to any machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from study.config import TrialConfig
from study.schema import Phase

_TUPLES = ("boundary", "keep_samples", "step")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How replicates of a cell train: fields of ``Task``. A study freezes them, for they change last digits."""

    together: int = 1
    step: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One member of a group.

    ``statistics`` (name -> settings) are still to be measured on its weights; of those in ``keep_samples`` single values are
    kept. ``during`` are measured every ``every`` epochs of training. ``together`` members of its group, at most, train as one
    network; ``ranks`` processes train this one. ``step``: options of the training step (``study.training.options``).
    """

    config: TrialConfig
    cell: str
    phase: Phase
    block: int
    replicate: int
    number: int
    statistics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keep_samples: tuple[str, ...] = ()
    during: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    every: int = 0
    boundary: tuple[str, ...] = ()
    defaulted: bool = False
    checkpoints: str = "none"
    together: int = 1
    step: tuple[str, ...] = ()
    ranks: int = 1

    def to_plain(self) -> dict[str, Any]:
        """JSON values."""
        lists = {name: list(getattr(self, name)) for name in _TUPLES}
        return {**vars(self), "config": self.config.as_dict(), **lists}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Task":
        """The inverse of ``to_plain``."""
        config = TrialConfig.from_mapping(values["config"])
        return cls(**{**values, "config": config, **{name: tuple(values[name]) for name in _TUPLES}})
