"""What a study compares and claims: contrasts, claims, doses, interim looks, and results that others have published.

Source: https://doi.org/10.1093/biomet/70.3.659
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from search_spaces.strict import Levels, Number, Strict

_LEAST_DOSES = 3
_ARM = "Levels of the cells that are judged."
SHORTENED = "shortened"
_Named = Annotated[Levels, Field(min_length=1)]


class Contrast(Strict):
    """An arm minus a reference, compared replicate by replicate where all other factors agree."""

    arm: Levels = Field(min_length=1, description=_ARM, examples=[{"merge": "mul"}])
    reference: Levels = Field(
        min_length=1, description="Levels of the same factors, of the cells compared with.", examples=[{"merge": "add"}]
    )

    @model_validator(mode="after")
    def _comparable(self) -> "Contrast":
        if self.arm == self.reference:
            raise ValueError("arm and reference are the same")
        if set(self.arm) != set(self.reference):
            raise ValueError("arm and reference must name the same factors")
        return self


class Outcome(Strict):
    """A primary outcome of a claim."""

    name: str = Field(
        description="A column of the table `trials`; `fmm-study levels outcome SPEC` lists them.",
        examples=["test/accuracy"],
    )
    margin: Number = Field(gt=0, description="Least difference that matters, in the outcome's unit.", examples=[0.005])
    better: Literal["higher", "lower"] = Field(default="higher", description="The direction that the claim asserts.")


class Claim(Strict):
    """A claim holds when the arm beats every reference in every outcome (an intersection-union test).

    Of a family of arms it holds when any one of them does so, and is refuted when every one is.
    """

    text: str = Field(description="The claim in words.", examples=["FMMNet beats ResNet"])
    arm: Levels = Field(default={}, description=f"{_ARM} Either this or `arms`.", examples=[{"merge": "mul"}])
    arms: list[_Named] = Field(
        default=[],
        max_length=100,
        description="A family: the claim holds if any of these arms does, and is refuted if none can.",
        examples=[[{"merge": "mul"}, {"merge": "sig_bn"}]],
    )
    references: list[Levels] = Field(
        min_length=1, max_length=100, description="What it must beat.", examples=[[{"merge": "add"}]]
    )
    outcomes: list[Outcome] = Field(min_length=1, max_length=100, description="In what it must.")
    presupposes: str = Field(
        default="",
        description="A claim without which this one has nothing to explain: the sentence says so if that one is refuted.",
        examples=["C5"],
    )

    @model_validator(mode="after")
    def _one_or_a_family(self) -> "Claim":
        _check_arms(self.arm, self.arms, "arms")
        # a comparison that stands twice is one, and the claim would wait for the other for ever
        for i, reference in enumerate(self.references):
            if reference in self.references[:i]:
                raise ValueError(f"references lists {dict(reference)} twice")
        names = [outcome.name for outcome in self.outcomes]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(f"outcomes lists {name!r} twice")
        return self

    @property
    def all_arms(self) -> list[Levels]:
        """The arm, or those of the family."""
        return self.arms or [self.arm]

    def contrasts(self) -> list[Contrast]:
        """Each arm against each reference."""
        return [Contrast(arm=arm, reference=reference) for arm in self.all_arms for reference in self.references]

    @property
    def num_parts(self) -> int:
        """In how many comparisons an arm must hold: each reference in each outcome."""
        return len(self.references) * len(self.outcomes)


class PositiveControl(Strict):
    """An outcome that a sound measurement finds above another one in the same networks."""

    higher: str = Field(
        description="What must lie higher: the lower limit of its mean.",
        examples=["attention_importance_spearman_zero_activation"],
    )
    lower: str = Field(
        description="What it must lie above: the upper limit of its mean.",
        examples=["attention_importance_spearman_zero"],
    )


class LevelClaim(Strict):
    """A claim on how high an outcome is in the arm's networks, without a reference."""

    text: str = Field(description="The claim in words.", examples=["Gates hardly agree with importance"])
    arm: Levels = Field(default={}, description=f"{_ARM} Either this or `each`.", examples=[{"attention_form": "mul"}])
    each: list[_Named] = Field(
        default=[],
        max_length=100,
        description="Several arms: the claim must hold of each of them.",
        examples=[[{"attention_form": "native"}, {"attention_form": "mul"}]],
    )
    control: PositiveControl | None = Field(
        default=None, description="What the measurement must find before the claim is believed."
    )
    outcome: str = Field(
        description="A column of the table `trials`; `fmm-study levels outcome SPEC` lists them.",
        examples=["attention_importance_ratio_zero"],
    )
    below: Number = Field(description="Supported if the interval lies below this.", examples=[0.5])
    above: Number = Field(description="Refuted if the interval lies above this.", examples=[0.7])

    @property
    def all_arms(self) -> list[Levels]:
        """The arm, or those of which each must hold."""
        return self.each or [self.arm]

    @property
    def num_parts(self) -> int:
        """How many levels it is judged by: one per arm."""
        return len(self.all_arms)

    @model_validator(mode="after")
    def _ordered(self) -> "LevelClaim":
        _check_arms(self.arm, self.each, "each")
        if not self.below <= self.above:
            raise ValueError(f"needs below <= above, got below={self.below:g}, above={self.above:g}")
        return self


def _check_arms(arm: Levels, several: Sequence[Levels], key: str) -> None:
    """Raise ``ValueError`` unless there is one arm, or several different ones that name the same factors."""
    if bool(arm) == bool(several):
        raise ValueError(f"needs either arm or {key}, got {'both' if arm else 'neither'}")
    if several and len(several) < 2:
        raise ValueError(f"{key} has one arm: write arm: {dict(several[0])}")
    for i, levels in enumerate(several):
        if levels in several[:i]:
            raise ValueError(f"{key} lists {dict(levels)} twice")
        if set(levels) != set(several[0]):
            raise ValueError(f"{key} must name the same factors in each arm, got {dict(several[0])} and {dict(levels)}")


class Assay(Contrast):
    """A difference known to exist at the study's scale, which the study must see before its claims are believed.

    ``shortened`` may stand among the levels of both sides: a share of the epochs in ``budget.shortened``, 1 for all of them.
    """

    @model_validator(mode="after")
    def _shares_are_numbers(self) -> "Assay":
        for levels in (self.arm, self.reference):
            share = levels.get(SHORTENED, 1)
            if isinstance(share, bool) or not isinstance(share, (int, float)):
                raise ValueError(f"{SHORTENED} is a share of the epochs, got {share!r}")
        return self

    @property
    def shares(self) -> tuple[float, float]:
        """The shares of the epochs that arm and reference train for."""
        arm, reference = (levels.get(SHORTENED, 1) for levels in (self.arm, self.reference))
        return float(arm), float(reference)

    def side(self, levels: Levels) -> Levels:
        """Levels of one side without its share of the epochs."""
        return {name: level for name, level in levels.items() if name != SHORTENED}


class Step(Strict):
    """The cells of one dose."""

    dose: Number = Field(description="How much of it they hold.", examples=[0.25])
    levels: Levels = Field(min_length=1, description="Levels of these cells.", examples=[{"merge": "mix_25"}])


class Dose(Strict):
    """Cells in the order of how much of one thing they hold: declared, not read from the names of levels.

    Cells are compared within a dataset and within the levels of all factors that no step names.
    """

    steps: list[Step] = Field(
        min_length=_LEAST_DOSES,
        max_length=1_000,
        description="At least three different doses, in any order: two are a contrast.",
        examples=[[{"dose": dose, "levels": {"merge": f"mix_{dose}"}} for dose in (25, 50, 100)]],
    )

    @model_validator(mode="after")
    def _enough(self) -> "Dose":
        if len({step.dose for step in self.steps}) < _LEAST_DOSES:
            raise ValueError("needs at least three different doses: two are a contrast")
        levels = [step.levels for step in self.steps]
        for i, named in enumerate(levels):
            if named in levels[:i]:
                raise ValueError(f"lists {named} twice")
        return self

    def factors(self) -> list[str]:
        """Factors that a step names, in order of first appearance."""
        return list(dict.fromkeys(name for step in self.steps for name in step.levels))

    def check(self, name: str, cells: Sequence[Levels]) -> None:
        """Raise ``ValueError`` where a step of the dose called ``name`` has no cell, or several that are not told apart."""
        factors = self.factors()
        if "dataset" in factors:
            raise ValueError(f"doses.{name} names 'dataset': doses are compared within a dataset")
        for step in self.steps:
            there = [cell for cell in cells if all(cell.get(key) == level for key, level in step.levels.items())]
            if not there:
                raise ValueError(f"doses.{name}: no cell of this study has {step.levels}")
            rest = [{key: level for key, level in cell.items() if key not in factors} for cell in there]
            if any(others in rest[:i] for i, others in enumerate(rest)):
                raise ValueError(f"doses.{name}: {step.levels} are several cells; name what tells them apart")


class Sequential(Strict):
    """Interim looks: cells that no undecided claim needs stop there."""

    looks: list[int] = Field(
        min_length=2,
        max_length=20,
        description="Rising numbers of blocks after which the claims are judged; the last is `blocks`.",
        examples=[[10, 16, 24]],
    )

    @field_validator("looks")
    @classmethod
    def _rising(cls, looks: list[int]) -> list[int]:
        if looks[0] < 2 or any(a >= b for a, b in pairwise(looks)):
            raise ValueError(f"needs two or more rising numbers of blocks, the first at least 2, got {looks}")
        return looks


class Published(Strict):
    """A result that others have reported, shown beside ours."""

    levels: Levels = Field(min_length=1, description="Levels of its cells.", examples=[{"merge": "add_bn_f"}])
    outcome: str = Field(
        description="A column of the table `trials`; `fmm-study levels outcome SPEC` lists them.",
        examples=["test/accuracy"],
    )
    value: Number = Field(description="What they report, in the outcome's unit.", examples=[0.8543])
    source: str = Field(description="Where.", examples=["https://arxiv.org/abs/2106.15067"])
    note: str = Field(default="", description="What to know of it.", examples=["one run"])
