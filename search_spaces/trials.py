"""How trials are tuned, trained and measured: hyperparameters, search budgets, joint searches, resources, statistics.

Source: https://doi.org/10.1007/978-3-540-88908-3_14
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from search_spaces.strict import Level, Levels, Number, Strict, once, quoted

_Option = Literal["auto", "fused", "channels_last", "graph", "compile", "bf16"]
Statistics = dict[str, dict[str, Any]]
MOST_EPOCHS = 100_000


class FloatRange(Strict):
    """A real nuisance hyperparameter between two bounds."""

    low: Number = Field(description="Lower bound.", examples=[0.01])
    high: Number = Field(description="Upper bound.", examples=[1.0])
    default: Number = Field(description="Value where nothing is tuned, or no search trial survived.", examples=[0.1])
    log: bool = Field(default=False, description="Search on a log scale; needs `low` above 0.")

    @model_validator(mode="after")
    def _ordered(self) -> "FloatRange":
        if not self.low < self.high:
            raise ValueError(f"needs low < high, got low={self.low:g}, high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low > 0, got low={self.low:g}")
        if not self.low <= self.default <= self.high:
            raise ValueError(f"default={self.default:g} lies outside [{self.low:g}, {self.high:g}]")
        return self


class Choice(Strict):
    """A categorical nuisance hyperparameter."""

    choices: list[Level] = Field(
        min_length=1, max_length=1_000, description="Values; the first is the default.", examples=[[0.9, 0.0]]
    )

    @field_validator("choices")
    @classmethod
    def _once(cls, choices: list[Level]) -> list[Level]:
        return once(choices)

    @property
    def default(self) -> Level:
        """The first choice."""
        return self.choices[0]


Nuisance = FloatRange | Choice


class Ranges(Strict):
    """Other ranges or choices of nuisance hyperparameters, for cells with certain levels."""

    where: Levels = Field(
        min_length=1, description="Factor -> the level that such a cell has.", examples=[{"optimizer": "adamw"}]
    )
    nuisance: dict[str, Nuisance] = Field(
        min_length=1,
        description="What stands there in the place of `nuisance`, whose names it takes.",
        examples=[{"lr": {"low": 0.0003, "high": 0.03, "log": True, "default": 0.003}}],
    )

    def fits(self, levels: Mapping[str, Any]) -> bool:
        """Whether a cell of these ``levels`` has them."""
        return all(name in levels and levels[name] == level for name, level in self.where.items())


def widest(ranges: Iterable[Nuisance]) -> Nuisance:
    """What holds all of ``ranges``: from the lowest bound to the highest, or every choice. The default is the first's.

    Raises ``ValueError`` for ranges beside choices that are no numbers.
    """
    listed = list(ranges)
    choices = list(dict.fromkeys(value for each in listed if isinstance(each, Choice) for value in each.choices))
    bounded = [each for each in listed if isinstance(each, FloatRange)]
    if not bounded:
        return Choice(choices=choices)
    if any(isinstance(value, str | bool) for value in choices):
        raise ValueError(f"a range in some cells and {quoted(choices)} in others: expected numbers")
    bounds = [*map(float, choices), *(bound for each in bounded for bound in (each.low, each.high))]
    log = min(bounds) > 0 and all(each.log for each in bounded)
    return FloatRange(low=min(bounds), high=max(bounds), log=log, default=float(listed[0].default))


class Budget(Strict):
    """What a search may spend, equal for every cell and block."""

    search_trials: int = Field(ge=0, le=10_000, description="Search trials per cell and block.", examples=[6])
    startup_trials: int = Field(
        ge=0, le=10_000, description="How many of them are points of a Sobol set.", examples=[3]
    )
    search_epochs: int | None = Field(
        default=None,
        ge=1,
        le=MOST_EPOCHS,
        description="Epochs of a search trial; as many as a replicate's if not given.",
        examples=[15],
    )
    shortened: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[],
        max_length=20,
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
        default=4,
        ge=1,
        le=1_000,
        description="Pareto-optimal trials of a block that are confirmed, at most.",
        examples=[4],
    )

    @field_validator("objectives")
    @classmethod
    def _once(cls, objectives: list[Objective]) -> list[Objective]:
        names = [objective.name for objective in objectives]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is listed twice")
        return objectives


class Resources(Strict):
    """What one group of replicates occupies, and how it trains. A group is run by one actor of Ray's."""

    cpus: float = Field(default=1, gt=0, le=1_024, description="Cores.", examples=[2])
    gpus: float = Field(default=0, ge=0, le=64, description="A fraction of a GPU, or whole ones.", examples=[0.25])
    group: int = Field(default=1, ge=1, le=1_024, description="Replicates of a cell in a group.", examples=[8])
    threads: int = Field(default=1, ge=1, le=256, description="Threads of each process that trains.", examples=[2])
    fuse: Literal["auto", "never", "always"] = Field(
        default="never",
        description="Train a group as one network: `auto` where that is measured to be faster before the first result. "
        "Last digits then depend on who trains together, so after a kill they may differ.",
    )
    data_parallel: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes of one host that train a replicate, each on a GPU of its own and on a share of every batch.",
        examples=[4],
    )
    step: list[_Option] = Field(
        default=[],
        description="Options of the training step; `plain` is none, `auto` adds those that are measured to be faster. "
        "`bf16`, which changes more than last digits, is taken only by name.",
        examples=["auto"],
    )

    @field_validator("step", mode="before", json_schema_input_type=Literal["plain", "auto"] | list[_Option])
    @classmethod
    def _one_word(cls, step: Any) -> Any:
        return {"plain": [], "auto": ["auto"]}.get(step, step) if isinstance(step, str) else step

    @field_validator("gpus")
    @classmethod
    def _fraction_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus={gpus:g}: a fraction of one GPU or a whole number of them")
        return gpus

    @model_validator(mode="after")
    def _consistent(self) -> "Resources":
        if "graph" in self.step and not self.gpus:
            raise ValueError("step: 'graph' needs a GPU, and gpus=0")
        num, gpus = self.data_parallel, self.gpus
        if gpus > 1 and gpus != num:
            raise ValueError(
                f"gpus={gpus:g} with data_parallel={num}: each process uses one GPU, so both must be {gpus:g}"
            )
        if num > 1 and gpus not in (0, num):
            raise ValueError(f"data_parallel={num} with gpus={gpus:g}: a GPU for each process is needed, gpus={num}")
        if num > 1 and (self.group > 1 or self.fuse != "never"):
            raise ValueError(
                f"data_parallel={num} with group={self.group}, fuse={self.fuse}: one replicate at a time, so group=1 and "
                "fuse=never"
            )
        if num > 1 and self.step:
            raise ValueError(f"data_parallel={num} with step={self.step}: the step of several processes is plain")
        return self


class During(Strict):
    """Measurements on validation images in the middle of confirmed trainings."""

    every: int = Field(
        ge=1, le=MOST_EPOCHS, description="After every so many epochs, and after the last.", examples=[10]
    )
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
        default=1, ge=1, le=1_000, description="How many replicates of each cell have pictures.", examples=[2]
    )
    keep_samples: list[str] = Field(
        default=[],
        max_length=100,
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
