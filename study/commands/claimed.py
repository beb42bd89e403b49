"""Whether a study can give what its claims, statistics and published results name, before it begins."""

from collections.abc import Iterator, Mapping

from analysis.claims.named import missing
from analysis.trials.arms import cells_of
from search_spaces import Claim, Spec
from study.commands.start import refuse_undecidable
from study.data import dataset_facts
from study.errors import UserError, nearest
from study.planning.estimable import check_gates
from study.planning.layout import Plan
from study.planning.outside import check_outside
from study.planning.plan import make_plan
from study.printing.outcomes import outcomes
from study.registry import PARTS
from study.schema import Quantity
from study.smoothness import fewest_classes


def checked_plan(spec: Spec) -> Plan:
    """The plan of a study that has not begun, everything checked that needs no data. Raises ``UserError``."""
    refuse_undecidable(spec)
    check_claims(plan := make_plan(spec, needs_data=False))
    return plan


def check_claims(plan: Plan) -> None:
    """Raise ``UserError`` for what a study cannot give.

    That is an outcome of nothing, one that its datasets or networks cannot have (see ``check_gates``), and a published level
    that is none.

    Others may have published what a study leaves out: a registered part, whose row stands without a value of ours.
    """
    cells = cells_of(plan.spec)
    for i, result in enumerate(plan.spec.published):
        levels = {n: level for n, level in result.levels.items() if n not in PARTS or level not in PARTS[n]}
        if told := missing(levels, cells):
            raise UserError(f"published[{i}]: {told}")
    known = outcomes(plan.spec)
    datasets = dict.fromkeys(str(cell.settings["dataset"]) for cell in plan.cells)
    for where, outcome in _outcomes(plan):
        if outcome not in known:
            raise UserError(f"{where}: outcome {outcome!r} {_unknown(outcome, known)}")
        statistic = known[outcome].statistic
        needed = fewest_classes(statistic, outcome) if statistic else 0
        for dataset in datasets:
            if (there := dataset_facts(dataset).num_classes) < needed:
                raise UserError(
                    f"{where}: outcome {outcome!r} is not estimable on {dataset}: it needs {needed} classes or more, not "
                    f"{there}; name another outcome, or leave the dataset out"
                )
    check_gates(plan)
    check_outside(plan.spec, {cell.name: plan.default_config(cell) for cell in plan.cells})


def _unknown(outcome: str, known: Mapping[str, Quantity]) -> str:
    everything = outcomes()
    if outcome in everything:
        return (
            f"is given by the statistic {everything[outcome].statistic!r}, which is not measured; add it under "
            "measure.statistics"
        )
    return f"is no metric and no estimate of a measured statistic{nearest(outcome, known)}"


def _outcomes(plan: Plan) -> Iterator[tuple[str, str]]:
    """Where an outcome is named, and its name."""
    spec = plan.spec
    for name, made in spec.all_claims.items():
        if isinstance(made, Claim):
            yield from ((f"claims.{name}", outcome.name) for outcome in made.outcomes)
            continue
        yield f"level_claims.{name}", made.outcome
        if made.control:
            yield f"level_claims.{name}.control.higher", made.control.higher
            yield f"level_claims.{name}.control.lower", made.control.lower
    yield from ((f"published[{i}]", known.outcome) for i, known in enumerate(spec.published))
