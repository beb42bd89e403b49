"""https://doi.org/10.1007/978-3-540-88908-3_14 (Deb 2008, multi-objective optimisation): a search for the best network.

Here Optuna chooses the scientific factors too. That gives cells unequal budgets, so nothing in such a study is an effect.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from search_spaces.strict import Strict

if TYPE_CHECKING:
    from search_spaces.spec import Spec


class Objective(Strict):
    """What a joint search optimises: a number known after a search trial, none of it from the test split or a clock."""

    name: Literal[
        "val/accuracy",
        "val/loss",
        "val/accuracy_best",
        "val/loss_best",
        "train/accuracy",
        "train/loss",
        "params",
        "flops",
    ]
    direction: Literal["minimize", "maximize"]


class Joint(Strict):
    """Optuna chooses the cell too: each block is one search over all cells, of ``budget.search_trials`` trials.

    At most ``confirm`` Pareto-optimal trials of a block are trained on its replicate seed.
    """

    objectives: list[Objective] = Field(min_length=2)
    confirm: int = Field(default=4, ge=1)

    @field_validator("objectives")
    @classmethod
    def _once(cls, objectives: list[Objective]) -> list[Objective]:
        names = [objective.name for objective in objectives]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is listed twice")
        return objectives


def refuse_effects(spec: "Spec") -> None:
    """Raise ``ValueError`` naming what a joint search has no place for."""
    if spec.space:
        raise ValueError("space with joint: a joint search chooses from nuisance and factors; remove one")
    for key in ("claims", "level_claims", "control", "contrasts", "doses"):
        if getattr(spec, key):
            raise ValueError(
                f"{key} with joint: a joint search looks for the best network, not for an effect; remove one"
            )
    if spec.replicates > 1:
        raise ValueError(f"replicates={spec.replicates} with joint: each block confirms its own winners; use blocks")
    if spec.scheduler.name != "none":
        raise ValueError(f"scheduler={spec.scheduler.name!r} with joint: several objectives know no early stopping")
    if spec.budget.shortened:
        raise ValueError("budget.shortened with joint: a shortened training serves effects; remove one")
    if not spec.budget.search_trials:
        raise ValueError("budget.search_trials=0 with joint: nothing to search")
