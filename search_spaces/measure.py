"""https://arxiv.org/abs/2106.15067: what a study measures of its networks, on which of them, and when."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from search_spaces.strict import Strict

Statistics = dict[str, dict[str, Any]]


class During(Strict):
    """Statistics taken on validation inputs in the middle of confirmed trainings, every ``every`` epochs and at the last."""

    every: int = Field(ge=1)
    statistics: Statistics = Field(min_length=1)


class Measure(Strict):
    """Statistics by name with their settings; an empty mapping means the defaults.

    ``statistics`` are taken on every confirmed replicate, ``landscapes`` (pictures, dear and few) on the first
    ``landscape_replicates`` of each cell alone. Of the statistics in ``keep_samples`` the single values (an image, a pair of
    images) are kept beside the estimates.
    """

    statistics: Statistics = {}
    landscapes: Statistics = {}
    landscape_replicates: int = Field(default=1, ge=1)
    keep_samples: list[str] = []
    during: During | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Measure":
        for name in self.landscapes:
            if name in self.statistics:
                raise ValueError(f"{name!r} stands under both statistics and landscapes")
        for name in self.keep_samples:
            if name not in self.statistics:
                raise ValueError(f"keep_samples names {name!r}, which is not among the statistics")
        return self

    def of(self, replicate: int, phase: str) -> Statistics:
        """What is taken on a replicate once it is trained; on shortened ones no landscapes."""
        if phase == "search":
            return {}
        pictured = phase == "confirm" and replicate < self.landscape_replicates
        return self.statistics | (self.landscapes if pictured else {})

    def all(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Where each statistic stands, its name and its settings."""
        during = self.during.statistics if self.during else {}
        listed = {"statistics": self.statistics, "landscapes": self.landscapes, "during.statistics": during}
        for where, chosen in listed.items():
            yield from ((where, name, settings) for name, settings in chosen.items())
