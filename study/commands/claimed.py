"""Whether a study can give what its claims, statistics and published results name, before it begins."""

from collections.abc import Iterator, Mapping

from analysis.claims.named import missing
from analysis.trials.arms import cells_of
from analysis.trials.table import CURVE_OUTCOMES, METRIC_COLUMNS
from search_spaces import Claim, Spec
from study.commands.start import refuse_undecidable
from study.data import dataset_facts
from study.errors import UserError, nearest
from study.planning.estimable import check_gates
from study.planning.layout import Plan
from study.planning.plan import make_plan
from study.registry import PARTS, STATISTICS
from study.smoothness import estimate_names, fewest_classes, parse_settings


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
    for i, known in enumerate(plan.spec.published):
        levels = {n: level for n, level in known.levels.items() if n not in PARTS or level not in PARTS[n]}
        if told := missing(levels, cells):
            raise UserError(f"published[{i}]: {told}")
    owners = {
        name: statistic
        for statistic, given in plan.spec.measure.statistics.items()
        for name in estimate_names(statistic, parse_settings(statistic, given))
    }
    datasets = dict.fromkeys(str(cell.settings["dataset"]) for cell in plan.cells)
    for where, outcome in _outcomes(plan):
        if outcome not in owners:
            _check_metric(where, outcome, owners)
            continue
        needed = fewest_classes(owners[outcome], outcome)
        for dataset in datasets:
            if (there := dataset_facts(dataset).num_classes) < needed:
                raise UserError(
                    f"{where}: outcome {outcome!r} is not estimable on {dataset}: it needs {needed} classes or more, not "
                    f"{there}; name another outcome, or leave the dataset out"
                )
    check_gates(plan)


def _check_metric(where: str, outcome: str, owners: Mapping[str, str]) -> None:
    metrics = [*METRIC_COLUMNS, *CURVE_OUTCOMES]
    if outcome in metrics:
        return
    for entry in STATISTICS:
        if outcome in estimate_names(entry.name, parse_settings(entry.name, {})):
            raise UserError(
                f"{where}: outcome {outcome!r} is given by the statistic {entry.name!r}, which is not measured; add it under "
                "measure.statistics"
            )
    raise UserError(
        f"{where}: outcome {outcome!r} is no metric and no estimate of a measured statistic"
        f"{nearest(outcome, [*metrics, *owners])}"
    )


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
