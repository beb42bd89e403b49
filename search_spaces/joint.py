"""https://doi.org/10.1007/978-3-540-88908-3_14 (Deb 2008, multi-objective optimisation): a search for the best network.

Here Optuna chooses the scientific factors too. That gives cells unequal budgets, so nothing in such a study is an effect.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from search_spaces.strict import Strict


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


def refuse_effects(spec: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` naming what of a specification, as plain values, a joint search has no place for."""
    if spec["space"]:
        raise ValueError("space with joint: a joint search chooses from nuisance and factors; remove one")
    for key in ("claims", "level_claims", "control", "contrasts", "doses"):
        if spec[key]:
            raise ValueError(
                f"{key} with joint: a joint search looks for the best network, not for an effect; remove one"
            )
    if (replicates := spec["replicates"]) > 1:
        raise ValueError(f"replicates={replicates} with joint: each block confirms its own winners; use blocks")
    if (scheduler := spec["scheduler"]["name"]) != "none":
        raise ValueError(f"scheduler={scheduler!r} with joint: several objectives know no early stopping")
    if spec["budget"]["shortened"]:
        raise ValueError("budget.shortened with joint: a shortened training serves effects; remove one")
    if not spec["budget"]["search_trials"]:
        raise ValueError("budget.search_trials=0 with joint: nothing to search")
