"""What a study measures of its networks, on which of them, and when."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from search_spaces.strict import Strict

Statistics = dict[str, dict[str, Any]]


class During(Strict):
    """Measurements on validation images in the middle of confirmed trainings."""

    every: int = Field(ge=1, description="After every so many epochs, and after the last.", examples=[10])
    statistics: Statistics = Field(
        min_length=1, description="Statistic -> its settings.", examples=[{"input_jacobian": {"num_samples": 256}}]
    )


class Measure(Strict):
    """Statistics by name, each with its settings; an empty mapping means the defaults."""

    statistics: Statistics = Field(
        default={}, description="Taken on every confirmed replicate.", examples=[{"path": {"num_pairs": 1000}}]
    )
    landscapes: Statistics = Field(
        default={},
        description="Pictures, which are dear: of the first replicates only.",
        examples=[{"loss_slices": {}}],
    )
    landscape_replicates: int = Field(
        default=1, ge=1, description="How many replicates of each cell have pictures.", examples=[2]
    )
    keep_samples: list[str] = Field(
        default=[],
        description="Statistics whose single values (per image or pair of images) are kept beside the estimates.",
        examples=[["path"]],
    )
    during: During | None = Field(
        default=None, description="What is measured in mid-training; fixed once the study has begun."
    )

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
