"""How cells are tuned: nuisance hyperparameters, the budget of a search, its sampler and scheduler, joint searches.

Source: https://doi.org/10.1007/978-3-540-88908-3_14
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from search_spaces.strict import Level, Strict


class FloatRange(Strict):
    """A real nuisance hyperparameter between two bounds."""

    low: float = Field(description="Lower bound.", examples=[0.01])
    high: float = Field(description="Upper bound.", examples=[1.0])
    default: float = Field(description="Value where nothing is tuned, or no search trial survived.", examples=[0.1])
    log: bool = Field(default=False, description="Search on a log scale; needs `low` above 0.")

    @model_validator(mode="after")
    def _ordered(self) -> "FloatRange":
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"needs finite low < high, got low={self.low:g}, high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low > 0, got low={self.low:g}")
        if not self.low <= self.default <= self.high:
            raise ValueError(f"default={self.default:g} lies outside [{self.low:g}, {self.high:g}]")
        return self


class Choice(Strict):
    """A categorical nuisance hyperparameter."""

    choices: list[Level] = Field(min_length=1, description="Values; the first is the default.", examples=[[0.9, 0.0]])

    @property
    def default(self) -> Level:
        """The first choice."""
        return self.choices[0]


Nuisance = FloatRange | Choice


class Budget(Strict):
    """What a search may spend, equal for every cell and block."""

    search_trials: int = Field(ge=0, description="Search trials per cell and block.", examples=[6])
    startup_trials: int = Field(ge=0, description="How many of them are points of a Sobol set.", examples=[3])
    search_epochs: int | None = Field(
        default=None,
        ge=1,
        description="Epochs of a search trial; as many as a replicate's if not given.",
        examples=[15],
    )
    shortened: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[],
        description="Shares of the epochs at which each winner is trained too, on the same seed, its schedule shortened.",
        examples=[[0.25, 0.5]],
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Budget":
        if self.startup_trials > self.search_trials:
            raise ValueError(f"startup_trials={self.startup_trials} exceeds search_trials={self.search_trials}")
        return self


class Named(Strict):
    """A registered sampler or scheduler."""

    name: str = Field(description="Its name, as `fmm-study levels` lists it.", examples=["tpe"])
    settings: dict[str, Any] = Field(default={}, description="Its own settings.", examples=[{"n_ei_candidates": 48}])


class Objective(Strict):
    """What a joint search optimises: a number that is known after a search trial, not from the test split or a clock."""

    name: Literal[
        "val/accuracy",
        "val/loss",
        "val/accuracy_best",
        "val/loss_best",
        "train/accuracy",
        "train/loss",
        "params",
        "flops",
    ] = Field(description="A metric of the last epoch (`_best`: of the best one), or the network's size.")
    direction: Literal["minimize", "maximize"] = Field(description="Which way is better.")


class Joint(Strict):
    """Optuna chooses the cell too: a block is one search over all cells. Cells get unequal budgets: nothing is an effect."""

    objectives: list[Objective] = Field(
        min_length=2,
        description="What is optimised.",
        examples=[[{"name": "val/accuracy", "direction": "maximize"}, {"name": "flops", "direction": "minimize"}]],
    )
    confirm: int = Field(
        default=4, ge=1, description="Pareto-optimal trials of a block that are confirmed, at most.", examples=[4]
    )

    @field_validator("objectives")
    @classmethod
    def _once(cls, objectives: list[Objective]) -> list[Objective]:
        names = [objective.name for objective in objectives]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is listed twice")
        return objectives
