"""The specification of a study: what varies, what is tuned, what is fixed, and how effects are judged.

Vocabulary of the Deep Learning Tuning Playbook (https://github.com/google-research/tuning_playbook): scientific *factors*
are crossed into cells, *nuisance* hyperparameters are tuned separately in every cell and block with an equal budget, the
rest is *fixed*. Only structure is checked here; names of levels and settings are checked where they are registered.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from search_spaces.dose import Dose, check_doses
from search_spaces.joint import Joint, refuse_effects
from search_spaces.measure import Measure
from search_spaces.resources import Resources
from search_spaces.sequential import Sequential, check_looks
from search_spaces.strict import Grid, Level, Levels, Strict


class FloatRange(Strict):
    """A real nuisance hyperparameter between ``low`` and ``high``; ``default`` is what a cell without survivors runs."""

    low: float
    high: float
    default: float
    log: bool = False

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
    """A categorical nuisance hyperparameter; the first choice is the default."""

    choices: list[Level] = Field(min_length=1)

    @property
    def default(self) -> Level:
        """The first choice."""
        return self.choices[0]


Nuisance = FloatRange | Choice


class Budget(Strict):
    """Equal for every cell and block: search trials, how many of them are Sobol points, epochs of a search trial.

    ``shortened``: each winner is trained at these shares of the epochs too, schedule and all, on the same seed.
    """

    search_trials: int = Field(ge=0)
    startup_trials: int = Field(ge=0)
    search_epochs: int | None = Field(default=None, ge=1)
    shortened: list[Annotated[float, Field(gt=0, lt=1)]] = []

    @model_validator(mode="after")
    def _consistent(self) -> "Budget":
        if self.startup_trials > self.search_trials:
            raise ValueError(f"startup_trials={self.startup_trials} exceeds search_trials={self.search_trials}")
        return self


class Named(Strict):
    """A registered part by name, with its own settings."""

    name: str
    settings: dict[str, Any] = {}


class Contrast(Strict):
    """An arm minus a reference, compared replicate by replicate where all other factors agree."""

    arm: Levels = Field(min_length=1)
    reference: Levels = Field(min_length=1)

    @model_validator(mode="after")
    def _comparable(self) -> "Contrast":
        if self.arm == self.reference:
            raise ValueError("arm and reference are the same")
        if set(self.arm) != set(self.reference):
            raise ValueError("arm and reference must name the same factors")
        return self


class Outcome(Strict):
    """One primary outcome of a claim, its margin (in the outcome's unit) and the direction the claim asserts."""

    name: str
    margin: float = Field(gt=0)
    better: Literal["higher", "lower"] = "higher"


class Claim(Strict):
    """A claim holds when the arm beats every reference in every outcome (an intersection-union test)."""

    text: str
    arm: Levels = Field(min_length=1)
    references: list[Levels] = Field(min_length=1)
    outcomes: list[Outcome] = Field(min_length=1)

    def contrasts(self) -> list[Contrast]:
        """The arm against each reference."""
        return [Contrast(arm=self.arm, reference=reference) for reference in self.references]


class LevelClaim(Strict):
    """A claim on how high ``outcome`` is in the arm's networks: supported if below ``below``, refuted if above ``above``."""

    text: str
    arm: Levels = Field(min_length=1)
    outcome: str
    below: float
    above: float

    @model_validator(mode="after")
    def _ordered(self) -> "LevelClaim":
        if not self.below <= self.above:
            raise ValueError(f"needs below <= above, got below={self.below:g}, above={self.above:g}")
        return self


class Published(Strict):
    """A result that others have reported for the cells at ``levels``, to stand beside ours: ``value`` of ``outcome``."""

    levels: Levels = Field(min_length=1)
    outcome: str
    value: float
    source: str
    note: str = ""


class Spec(Strict):
    """A whole study. Everything a result depends on is here; where and with how many workers it runs is not."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)
    title: str = ""
    demonstration: bool = False
    seed: int = Field(default=0, ge=0)
    factors: list[Annotated[Grid, Field(min_length=1)]] = Field(min_length=1)
    fixed: dict[str, Level] = {}
    nuisance: dict[str, Nuisance] = {}
    blocks: int = Field(ge=1)
    replicates: int = Field(default=1, ge=1)
    budget: Budget
    sampler: Named = Named(name="tpe")
    scheduler: Named = Named(name="none")
    resources: Resources = Resources()
    measure: Measure = Measure()
    space: str = Field(default="", pattern=r"^$|^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    joint: Joint | None = None
    sequential: Sequential | None = None
    plugins: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]] = []
    checkpoints: Literal["final", "best", "none"] = "final"
    contrasts: list[Contrast] = []
    doses: dict[str, Dose] = {}
    control: Contrast | None = None
    claims: dict[str, Claim] = {}
    level_claims: dict[str, LevelClaim] = {}
    published: list[Published] = []
    alpha: float = Field(default=0.05, gt=0, lt=0.5)

    @field_validator("factors", mode="before")
    @classmethod
    def _one_or_many_grids(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("factors")
    @classmethod
    def _no_empty_factor(cls, grids: list[Grid]) -> list[Grid]:
        for grid in grids:
            for factor, levels in grid.items():
                if not levels:
                    raise ValueError(f"factor {factor!r} has no levels")
                if len(set(map(repr, levels))) != len(levels):
                    raise ValueError(f"factor {factor!r} lists a level twice: {levels}")
        return grids

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        roles: dict[str, str] = {}
        for role, names in (("factors", self.factor_names()), ("fixed", self.fixed), ("nuisance", self.nuisance)):
            for name in names:
                if name in roles:
                    raise ValueError(f"{name!r} stands under both {roles[name]} and {role}")
                roles[name] = role
        if self.replicates > 1 and self.blocks > 1:
            raise ValueError(
                f"replicates={self.replicates} with blocks={self.blocks}: replicate r is block r, so several replicates "
                "need blocks: 1 (one search, no verdict)"
            )
        if not self.nuisance and self.budget.search_trials:
            raise ValueError(
                f"budget.search_trials={self.budget.search_trials} but nuisance is empty: nothing to search"
            )
        if self.joint:
            refuse_effects(self.model_dump())
        if self.sequential:
            check_looks(self.looks, self.model_dump())
        factors = self.factor_names()
        named = [("published", known.levels) for known in self.published]
        named += [(f"level_claims.{name}", claim.arm) for name, claim in self.level_claims.items()]
        for where, levels in named:
            for factor in levels:
                if factor not in factors:
                    raise ValueError(
                        f"{where} names {factor!r}, which is no factor of this study ({', '.join(factors)})"
                    )
        for name in self.level_claims:
            if name in self.claims:
                raise ValueError(f"{name!r} stands under both claims and level_claims")
        for contrast in self.all_contrasts():
            for factor in contrast.arm:
                if factor not in factors:
                    raise ValueError(
                        f"a contrast names {factor!r}, which is no factor of this study ({', '.join(factors)})"
                    )
        check_doses(self.doses, factors, list(self.cells()))
        return self

    def factor_names(self) -> list[str]:
        """Names of all factors, in order of first appearance."""
        return list(dict.fromkeys(itertools.chain.from_iterable(self.factors)))

    @property
    def defaults(self) -> Levels:
        """Nuisance values of a cell that was not tuned."""
        return {name: nuisance.default for name, nuisance in self.nuisance.items()}

    def cells(self) -> Iterator[Levels]:
        """Every combination of levels, once, in the order of the spec."""
        seen: set[tuple[tuple[str, str], ...]] = set()
        for grid in self.factors:
            for levels in itertools.product(*grid.values()):
                cell = dict(zip(grid, levels, strict=True))
                identity = tuple(sorted((name, repr(level)) for name, level in cell.items()))
                if identity not in seen:
                    seen.add(identity)
                    yield cell

    @property
    def looks(self) -> list[int]:
        """Numbers of blocks after which the claims are judged: the last alone, unless the study is sequential."""
        return self.sequential.looks if self.sequential else [self.blocks]

    def at_look(self, num_blocks: int) -> "Spec":
        """The study as its look after ``num_blocks`` sees it: one of so many blocks."""
        return self.model_copy(update={"blocks": num_blocks, "sequential": None})

    def all_contrasts(self) -> list[Contrast]:
        """The control, the claims' contrasts and the exploratory ones, each once."""
        listed = [self.control] if self.control else []
        listed += [contrast for claim in self.claims.values() for contrast in claim.contrasts()] + self.contrasts
        return [contrast for i, contrast in enumerate(listed) if contrast not in listed[:i]]
