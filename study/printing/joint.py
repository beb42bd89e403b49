"""What ``plan``, ``status`` and the end of ``run`` print of a joint search, whose cells have no budget of their own."""

from collections.abc import Sequence

from analysis.inputs import Inputs
from analysis.tables.build import build_table
from study.planning.plan import Plan
from study.resources.forecast import CellForecast, total_seconds


def plan_lines(plan: Plan, cells: Sequence[CellForecast]) -> list[str]:
    """Trials, objectives and expected time."""
    spec = plan.spec
    assert spec.joint is not None
    wanted = ", ".join(f"{objective.direction} {objective.name}" for objective in spec.joint.objectives)
    seconds = total_seconds(plan, list(cells))
    budget = spec.budget
    guided = spec.blocks * (budget.search_trials - budget.startup_trials)
    return [
        f"joint search over {len(plan.cells)} cells: {wanted}",
        f"{spec.blocks} blocks x ({budget.search_trials} search trials + at most {spec.joint.confirm} confirmed) = "
        f"{plan.num_search} + {plan.num_confirm} trainings",
        f"{guided} suggestions are guided by the {spec.sampler.name} sampler; the others are one Sobol set a block",
        f"expected: about {seconds / 60:.1f} min of one worker, timed here on random weights",
        "a search for the best network: cells get unequal budgets, so that it shows no effect and has no verdict",
    ]


def result_lines(inputs: Inputs) -> list[str]:
    """One line a Pareto-optimal trial of a block; none where the search is not joint."""
    lines = []
    for row in build_table(inputs, "pareto").to_pylist():
        reached = row["test_accuracy"]
        tested = row["state"] or "not confirmed yet"
        if reached is not None:
            tested = f"test accuracy {100 * reached:.1f}%"
        lines.append(f"block {row['block']}: {row['cell']} ({row['settings']}): {row['objectives']}; {tested}")
    return lines
