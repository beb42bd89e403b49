"""Whether what claims are on can be measured on the networks of a study at all."""

from search_spaces import Claim
from study.data import dataset_facts
from study.errors import UserError
from study.planning.plan import Plan
from study.smoothness import estimate_names, fewest_classes, parse_settings


def check_claims(plan: Plan) -> None:
    """Raise ``UserError`` for a claim on an estimate that needs more classes than a dataset of the study has."""
    owners = {
        name: statistic
        for _, statistic, given in plan.spec.measure.all()
        for name in estimate_names(statistic, parse_settings(statistic, given))
    }
    datasets = dict.fromkeys(str(cell.settings["dataset"]) for cell in plan.cells)
    for claim, made in plan.spec.all_claims.items():
        outcomes = [outcome.name for outcome in made.outcomes] if isinstance(made, Claim) else [made.outcome]
        for outcome in outcomes:
            needed = fewest_classes(owners[outcome], outcome) if outcome in owners else 0
            for dataset in datasets:
                if (there := dataset_facts(dataset).num_classes) < needed:
                    raise UserError(
                        f"claim {claim}: outcome {outcome!r} is not estimable on {dataset}: it needs {needed} classes or "
                        f"more, not {there}; name another outcome, or leave the dataset out"
                    )
