"""Whether what is claimed, and what is to be measured, can be had of the networks of a study at all."""

from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces import Claim
from study.data import dataset_facts
from study.errors import UserError
from study.planning.networks import shapes
from study.planning.plan import Cell, Plan
from study.registry import STATISTICS
from study.smoothness import estimate_names, fewest_classes, parse_settings
from study.smoothness.clamped import gated_modules


def check_claims(plan: Plan) -> None:
    """Raise ``UserError`` for what no network of the study can give.

    That is a statistic of attention where none has a gate, a claim on it whose networks have none, and a claim on an estimate
    that needs more classes than a dataset of the study has.
    """
    for where, statistic, given in plan.spec.measure.all():
        if _needs_gates(statistic) and not _gated(plan, plan.cells, parse_settings(statistic, given).gates):
            raise UserError(
                f"measure.{where}.{statistic}: no network of this study has an attention gate"
                f"{_hint(given)}; leave it out, or add a level of attention"
            )
    owners = {
        name: statistic
        for _, statistic, given in plan.spec.measure.all()
        for name in estimate_names(statistic, parse_settings(statistic, given))
    }
    gates = {
        name: parse_settings(name, given).gates for _, name, given in plan.spec.measure.all() if _needs_gates(name)
    }
    datasets = dict.fromkeys(str(cell.settings["dataset"]) for cell in plan.cells)
    for claim, made in plan.spec.all_claims.items():
        outcomes = [outcome.name for outcome in made.outcomes] if isinstance(made, Claim) else [made.outcome]
        arms = made.all_arms
        for outcome in outcomes:
            for arm in arms if owners.get(outcome) in gates else ():
                cells = [cell for cell in plan.cells if arm.items() <= {**cell.settings}.items()]
                if cells and not _gated(plan, cells, gates[owners[outcome]]):
                    raise UserError(
                        f"claim {claim}: outcome {outcome!r} is not estimable on {dict(arm)}: none of its networks has an "
                        f"attention gate, {cells[0].name} for one"
                    )
            needed = fewest_classes(owners[outcome], outcome) if outcome in owners else 0
            for dataset in datasets:
                if (there := dataset_facts(dataset).num_classes) < needed:
                    raise UserError(
                        f"claim {claim}: outcome {outcome!r} is not estimable on {dataset}: it needs {needed} classes or "
                        f"more, not {there}; name another outcome, or leave the dataset out"
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
