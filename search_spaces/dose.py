"""A dose: cells in the order of how much of one thing they hold, named before a study runs.

The dose of a level is not read from its name: it is declared, so that ``mix_25`` can be 0.25, a place of the operator the
share of blocks that have it at this depth, and a penalty its weight.
"""

from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from search_spaces.strict import Levels, Strict

_LEAST_DOSES = 3


class Step(Strict):
    """The cells at ``levels`` have this ``dose``."""

    dose: float = Field(allow_inf_nan=False)
    levels: Levels = Field(min_length=1)


class Dose(Strict):
    """Steps of a dose, in any order; at least three different ones, since two doses are a contrast.

    Cells are compared within a dataset and within the levels of all factors that no step names.
    """

    steps: list[Step] = Field(min_length=_LEAST_DOSES)

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


def check_doses(doses: Mapping[str, Dose], factors: Sequence[str], cells: Sequence[Levels]) -> None:
    """Raise ``ValueError`` for a dose that names a factor or a level that the study does not have, or a cell twice."""
    for name, dose in doses.items():
        for factor in dose.factors():
            if factor not in factors:
                raise ValueError(
                    f"doses.{name} names {factor!r}, which is no factor of this study ({', '.join(factors)})"
                )
        if "dataset" in dose.factors():
            raise ValueError(f"doses.{name} names 'dataset': doses are compared within a dataset")
        for step in dose.steps:
            there = [_context(cell, dose) for cell in cells if _holds(cell, step.levels)]
            if not there:
                raise ValueError(f"doses.{name}: no cell of this study has {step.levels}")
            if any(context in there[:i] for i, context in enumerate(there)):
                raise ValueError(f"doses.{name}: {step.levels} are several cells; name what tells them apart")


def _holds(cell: Levels, levels: Levels) -> bool:
    return all(cell.get(name) == level for name, level in levels.items())


def _context(cell: Levels, dose: Dose) -> Levels:
    return {name: level for name, level in cell.items() if name not in dose.factors()}
