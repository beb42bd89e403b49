"""Whether the networks of a study have the gates that its statistics, claims and settings are on."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces import Claim
from study.config import is_own
from study.data import dataset_facts
from study.errors import UserError
from study.planning.layout import Cell, Plan
from study.planning.networks import shapes
from study.registry import STATISTICS
from study.smoothness import estimate_names, parse_settings
from study.smoothness.clamped import gated_modules


def check_gates(plan: Plan) -> None:
    """Raise ``UserError`` where no network has the gate that a statistic is on, or those of a claim on it have none.

    So it is where ``attention_where`` says which blocks have attention, and no cell has any.
    """
    _check_where(plan)
    gates: dict[str, tuple[str, ...]] = {}
    for where, statistic, given in plan.spec.measure.all():
        if not _needs_gates(statistic):
            continue
        settings = parse_settings(statistic, given)
        if not _gated(plan, plan.cells, settings.gates):
            raise UserError(
                f"measure.{where}.{statistic}: no network of this study has an attention gate"
                f"{_hint(given)}; leave it out, or add a level of attention"
            )
        gates |= dict.fromkeys(estimate_names(statistic, settings), settings.gates)
    for claim, made in plan.spec.all_claims.items():
        outcomes = [outcome.name for outcome in made.outcomes] if isinstance(made, Claim) else [made.outcome]
        for outcome, arm in itertools.product([name for name in outcomes if name in gates], made.all_arms):
            cells = [cell for cell in plan.cells if arm.items() <= cell.settings.items()]
            if cells and not _gated(plan, cells, gates[outcome]):
                raise UserError(
                    f"claim {claim}: outcome {outcome!r} is not estimable on {dict(arm)}: none of its networks has an "
                    f"attention gate, {cells[0].name} for one"
                )


def _check_where(plan: Plan) -> None:
    configs = [plan.default_config(cell) for cell in plan.cells]
    chosen = [config.attention_where for config in configs if config.attention_where != "all"]
    tuned = "attention" in plan.spec.nuisance or any(is_own(config.network) for config in configs)
    if chosen and not tuned and all(config.attention == "none" for config in configs):
        raise UserError(
            f"attention_where = {chosen[0]!r}: no cell of this study has attention; leave it out, or add a level of attention"
        )


def _needs_gates(statistic: str) -> bool:
    return STATISTICS[statistic].traits.get("only") == "networks with attention"


def _hint(given: Mapping[str, Any]) -> str:
    return "" if given.get("gates") else " (a module called gate, or one that its setting gates names)"


def _gated(plan: Plan, cells: Iterable[Cell], gates: tuple[str, ...]) -> bool:
    """Whether the network of any of ``cells`` has a gate, or a module of these names."""
    for cell in cells:
        config = plan.default_config(cell)
        try:
            if gated_modules(shapes(config, dataset_facts(config.dataset)), gates):
                return True
        except UserError:  # it has none of these names
            continue
    return False
