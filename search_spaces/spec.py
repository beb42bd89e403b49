"""The specification of a study: what varies, what is tuned, what is fixed, and how effects are judged.

Vocabulary of the Deep Learning Tuning Playbook: scientific *factors* are crossed into cells, *nuisance* hyperparameters are
tuned separately in every cell and block with an equal budget, the rest is *fixed*. Only structure is checked here; names of
levels and settings are checked where they are registered.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from search_spaces.claims import SHORTENED, Assay, Claim, Contrast, Dose, LevelClaim, Published, Sequential
from search_spaces.strict import MOST_NAME, Grid, Level, Levels, Strict, canonical, found, nearest, once, quoted
from search_spaces.trials import Budget, Joint, Measure, Named, Nuisance, Ranges, Resources, widest

_Grid = Annotated[Grid, Field(min_length=1)]
_Grids = Annotated[list[_Grid], Field(min_length=1)]
_Share = Annotated[float, Field(ge=0, le=1)]
# The key of a floor that is meant for every dataset.
ANY_DATASET = "all"
# What one study can hold: each cell is a network that a plan builds and times, each training a line of the ledger.
MOST_CELLS, MOST_TRAININGS = 1_000, 1_000_000


class Spec(Strict):
    """A whole study. Everything a result depends on is here; where and with how many workers it runs is not."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=64,
        description="Name of the study, of its folder, and of its experiment in MLflow.",
        examples=["digits"],
    )
    title: str = Field(default="", description="Heading of the report.", examples=["Multiplication on 8x8 digits"])
    demonstration: bool = Field(
        default=False, description="Say beside every verdict that it holds for networks and images this small alone."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="The seed that all others derive from.", examples=[20210615]
    )
    factors: _Grids = Field(
        description="Settings whose levels are crossed into cells. Of several grids, each is crossed by itself.",
        examples=[{"merge": ["add", "mul"], "depth": [8, 14]}],
    )
    fixed: dict[str, Level] = Field(
        default={}, description="Settings that all cells share.", examples=[{"dataset": "digits", "epochs": 8}]
    )
    accuracy_floor: dict[str, _Share] = Field(
        default={},
        max_length=100,
        description="Validation accuracy below which a network counts as collapsed: of all datasets, or by name. If not "
        "given, near chance: twice the share of the largest class, or a tenth of the way from it to 1 where that is less. "
        "Fixed once the study has begun.",
        examples=[0.5, {"digits": 0.5}],
    )
    nuisance: dict[str, Nuisance] = Field(
        default={},
        description="Settings that are tuned in every cell and block: a range or choices.",
        examples=[{"lr": {"low": 0.03, "high": 1.0, "log": True, "default": 0.2}}],
    )
    ranges: list[Ranges] = Field(
        default=[],
        max_length=100,
        description="Other ranges where cells have certain levels, mapped from the same points. Of several the last counts.",
        examples=[
            [{"where": {"optimizer": "adamw"}, "nuisance": {"lr": {"low": 0.0003, "high": 0.03, "default": 0.003}}}]
        ],
    )
    blocks: int = Field(
        ge=1,
        le=1_000,
        description="Independent repetitions: each has its own split, searches and confirmed replicate of every cell.",
        examples=[10],
    )
    replicates: int = Field(
        default=1,
        ge=1,
        le=1_000,
        description="Confirmed replicates of each winner. More than one needs `blocks: 1`, and gives no verdict.",
        examples=[1],
    )
    budget: Budget = Field(description="What each search may spend.")
    sampler: Named = Field(
        default=Named(name="tpe"),
        description="Suggests trials after the startup trials.",
        examples=[{"name": "random"}],
    )
    scheduler: Named = Field(
        default=Named(name="none"), description="Stops search trials early.", examples=[{"name": "median"}]
    )
    resources: Resources = Field(
        default=Resources(), description="What a group of replicates occupies.", examples=[{"gpus": 0.25, "group": 8}]
    )
    measure: Measure = Field(
        default=Measure(), description="What is measured of each network.", examples=[{"statistics": {"path": {}}}]
    )
    space: str = Field(
        default="",
        max_length=MOST_NAME,
        pattern=r"^$|^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="`module:function`, a conditional search space of one's own (`docs/plugins.md`).",
        examples=["my_space:warmed"],
    )
    joint: Joint | None = Field(default=None, description="Search for the best network instead of effects.")
    sequential: Sequential | None = Field(default=None, description="More blocks only where a claim is undecided.")
    plugins: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=MOST_NAME)]] = Field(
        default=[],
        max_length=100,
        description="Modules with levels of one's own (`docs/plugins.md`).",
        examples=[["my_levels"]],
    )
    checkpoints: Literal["final", "best", "none"] = Field(
        default="final",
        description="Weights kept of confirmed replicates; `best` keeps those of the best epoch beside the final ones.",
    )
    contrasts: list[Contrast] = Field(default=[], max_length=1_000, description="Exploratory comparisons.")
    doses: dict[str, Dose] = Field(
        default={}, max_length=100, description="Name -> cells in the order of how much of one thing they hold."
    )
    control: Contrast | None = Field(
        default=None,
        description="The A/A control: one thing under two names. Without it, or if it differs, every claim is undecided.",
        examples=[{"arm": {"merge": "add_alias"}, "reference": {"merge": "add"}}],
    )
    assay: Assay | None = Field(
        default=None,
        description="A difference in test accuracy known to exist at the study's scale. If it is not seen, every claim is "
        "undecided. `shortened` names a share of the epochs.",
        examples=[{"arm": {"merge": "add"}, "reference": {"merge": "none"}}],
    )
    claims: dict[str, Claim] = Field(
        default={},
        max_length=100,
        description="Name -> a claim on differences, fixed before the first confirmed replicate.",
    )
    level_claims: dict[str, LevelClaim] = Field(
        default={}, max_length=100, description="Name -> a claim on how high an outcome is."
    )
    published: list[Published] = Field(default=[], max_length=1_000, description="Results that others have reported.")
    alpha: float = Field(
        default=0.05, ge=1e-6, lt=0.5, description="Family-wise error rate over all claims.", examples=[0.05]
    )

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, values: Any) -> Any:
        return canonical(values) if isinstance(values, dict) else values

    @field_validator("factors", mode="before", json_schema_input_type=_Grid | _Grids)
    @classmethod
    def _one_or_many_grids(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("accuracy_floor", mode="before", json_schema_input_type=_Share | dict[str, _Share])
    @classmethod
    def _one_or_many_floors(cls, value: Any) -> Any:
        if type(value) in (int, float):
            return {ANY_DATASET: value}
        if not isinstance(value, dict):
            raise ValueError(f"needs a share from 0 to 1, or one by dataset, {found(value)}")
        return value

    @field_validator("factors")
    @classmethod
    def _no_empty_factor(cls, grids: list[Grid]) -> list[Grid]:
        for grid in grids:
            for factor, levels in grid.items():
                if not levels:
                    raise ValueError(f"factor {factor!r} has no levels")
                try:
                    once(levels)
                except ValueError as error:
                    raise ValueError(f"factor {factor!r} {error}") from None
        num = sum(math.prod(map(len, grid.values())) for grid in grids)
        if num > MOST_CELLS:
            raise ValueError(f"{num:,} cells, at most {MOST_CELLS:,} make a study")
        return grids

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        roles: dict[str, str] = {}
        for role, names in (("factors", self.factor_names()), ("fixed", self.fixed), ("nuisance", self.nuisance)):
            for name in names:
                if name in roles:
                    raise ValueError(f"{name!r} stands under both {roles[name]} and {role}")
                roles[name] = role
        self._check_size()
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
            self._refuse_effects()
        if self.sequential:
            self._check_looks(self.sequential.looks[-1])
        for name in self.accuracy_floor:
            if name not in (known := [ANY_DATASET, *self.datasets]):
                raise ValueError(
                    f"accuracy_floor names {name!r}, which is no dataset of this study{nearest(name, known)}"
                )
        factors = self.factor_names()
        named: list[tuple[str, list[str]]] = [("published", list(known.levels)) for known in self.published]
        named += [(f"level_claims.{name}", list(claim.all_arms[0])) for name, claim in self.level_claims.items()]
        named += [("a contrast", list(contrast.arm)) for contrast in self.all_contrasts()]
        named += [("assay", list(self.assay.side(self.assay.arm)))] if self.assay else []
        named += [(f"doses.{name}", dose.factors()) for name, dose in self.doses.items()]
        for where, names in named:
            for factor in names:
                if factor not in factors:
                    raise ValueError(
                        f"{where} names {factor!r}, which is no factor of this study ({', '.join(factors)})"
                    )
        for name in self.level_claims:
            if name in self.claims:
                raise ValueError(f"{name!r} stands under both claims and level_claims")
        for name, claim in self.claims.items():
            if claim.presupposes and (claim.presupposes == name or claim.presupposes not in self.all_claims):
                others = ", ".join(other for other in self.all_claims if other != name)
                raise ValueError(f"claims.{name}.presupposes {claim.presupposes!r}, which is no other claim ({others})")
        if self.ranges:
            self._check_ranges()
        if self.assay:
            self._check_assay(self.assay)
        for name, dose in self.doses.items():
            dose.check(name, list(self.cells()))
        return self

    def _check_ranges(self) -> None:
        """Raise ``ValueError`` naming a range that no cell has, or that no hyperparameter can have."""
        cells = list(self.cells())
        for index, other in enumerate(self.ranges):
            where = f"ranges.{index}"
            for factor, level in other.where.items():
                if factor not in self.factor_names():
                    known = nearest(factor, self.factor_names())
                    raise ValueError(f"{where}.where names {factor!r}, which is no factor of this study{known}")
                levels = list(dict.fromkeys(self.levels_of(factor)))
                if level not in levels:
                    known = nearest(str(level), [str(each) for each in levels])
                    raise ValueError(f"{where}.where: {factor} = {quoted(level)} is no level of this study{known}")
            for name in other.nuisance:
                if name not in self.nuisance:
                    known = nearest(name, list(self.nuisance))
                    raise ValueError(f"{where}.nuisance names {name!r}, which nuisance does not declare{known}")
            if not any(map(other.fits, cells)):
                raise ValueError(f"{where}: no cell has {quoted(other.where)}")
        for name in self.nuisance:
            try:
                self.widest(name)
            except ValueError as error:
                raise ValueError(f"ranges of {name!r}: {error}") from None

    def _check_assay(self, assay: Assay) -> None:
        """Raise ``ValueError`` naming what an assay cannot be read from."""
        for share in assay.shares:
            if share not in (1, *self.budget.shortened):
                known = ", ".join(f"{share:g}" for share in (*self.budget.shortened, 1))
                raise ValueError(f"assay: {SHORTENED} is {share:g}, and budget.shortened has {known}")

    def _check_size(self) -> None:
        """Raise ``ValueError`` where the study has more trainings than it can hold."""
        cells, budget = sum(1 for _ in self.cells()), self.budget
        each = budget.search_trials + self.replicates * (1 + len(budget.shortened))
        if cells * self.blocks * each > MOST_TRAININGS:
            raise ValueError(
                f"{cells:,} cells x {self.blocks:,} blocks x {each:,} trainings are {cells * self.blocks * each:,}, at most "
                f"{MOST_TRAININGS:,} make a study"
            )

    def _refuse_effects(self) -> None:
        """Raise ``ValueError`` naming what a joint search has no place for."""
        if self.space:
            raise ValueError("space with joint: a joint search chooses from nuisance and factors; remove one")
        if self.ranges:
            raise ValueError("ranges with joint: a joint search has one space for all cells; remove one")
        for key in ("claims", "level_claims", "control", "assay", "contrasts", "doses"):
            if getattr(self, key):
                raise ValueError(
                    f"{key} with joint: a joint search looks for the best network, not for an effect; remove one"
                )
        if self.replicates > 1:
            raise ValueError(
                f"replicates={self.replicates} with joint: each block confirms its own winners; use blocks"
            )
        if self.scheduler.name != "none":
            raise ValueError(f"scheduler={self.scheduler.name!r} with joint: several objectives know no early stopping")
        if self.budget.shortened:
            raise ValueError("budget.shortened with joint: a shortened training serves effects; remove one")
        if not self.budget.search_trials:
            raise ValueError("budget.search_trials=0 with joint: nothing to search")

    def _check_looks(self, last: int) -> None:
        """Raise ``ValueError`` naming what does not go with interim looks."""
        if self.blocks != last:
            raise ValueError(
                f"blocks={self.blocks} with sequential.looks up to {last}: blocks is the last look, {last}"
            )
        if self.joint:
            raise ValueError("sequential with joint: a joint search decides no claim; remove one")
        if not self.all_claims:
            raise ValueError(
                "sequential without claims: looks are there to decide claims; add one or remove sequential"
            )
        if self.control is None:
            raise ValueError(
                "sequential without control: no number of blocks gives a verdict without an A/A control; add one"
            )

    def factor_names(self) -> list[str]:
        """Names of all factors, in order of first appearance."""
        return list(dict.fromkeys(itertools.chain.from_iterable(self.factors)))

    @property
    def datasets(self) -> list[str]:
        """Levels of ``dataset``, each once."""
        named = [*self.levels_of("dataset"), self.fixed.get("dataset", "")]
        return list(dict.fromkeys(str(name) for name in named if name))

    def floor_of(self, dataset: str) -> float | None:
        """The accuracy floor that is given for ``dataset``."""
        return self.accuracy_floor.get(dataset, self.accuracy_floor.get(ANY_DATASET))

    @property
    def networks(self) -> list[str]:
        """Levels of ``network``, wherever they stand, each once."""
        tuned = self.nuisance.get("network")
        named = [*self.levels_of("network"), self.fixed.get("network", ""), *getattr(tuned, "choices", [])]
        return list(dict.fromkeys(str(name) for name in named if name))

    def levels_of(self, factor: str) -> list[Level]:
        """Levels of ``factor``, grid by grid: one that several grids have, several times."""
        return [level for grid in self.factors for level in grid.get(factor, [])]

    @property
    def all_claims(self) -> dict[str, Claim | LevelClaim]:
        """Claims on differences, then those on levels, by name."""
        return {**self.claims, **self.level_claims}

    @property
    def claimed_outcomes(self) -> list[str]:
        """Outcomes that claims on differences name, each once."""
        return list(dict.fromkeys(outcome.name for claim in self.claims.values() for outcome in claim.outcomes))

    @property
    def defaults(self) -> Levels:
        """Nuisance values of a cell that was not tuned."""
        return {name: nuisance.default for name, nuisance in self.nuisance.items()}

    def in_cell(self, levels: Mapping[str, Any]) -> "Spec":
        """The study as a cell of these ``levels`` sees it: ``nuisance`` has the ranges of that cell."""
        other = {
            name: range_ for ranges in self.ranges if ranges.fits(levels) for name, range_ in ranges.nuisance.items()
        }
        return self.model_copy(update={"nuisance": self.nuisance | other}) if other else self

    def widest(self, name: str) -> Nuisance:
        """What holds the ranges of a nuisance hyperparameter in all cells."""
        return widest([self.nuisance[name], *(each.nuisance[name] for each in self.ranges if name in each.nuisance)])

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
