"""The claims as the study states them, before any number.

Source: https://doi.org/10.1073/pnas.1708274114
"""

from typing import Any

from analysis.inputs import Inputs
from analysis.trials.grid import label
from analysis.words.columns import number, shared, text
from analysis.words.rows import Rows
from search_spaces.registered import registered
from search_spaces.spec import Spec
from study.registry import TABLES


@TABLES.register(
    "registered",
    formula="one row a comparison of a claim: estimand, contrast, margin, test and family, and since when it stands",
    source="https://doi.org/10.1073/pnas.1708274114",
    title="What was claimed",
    place=4.05,
    columns=(
        *shared("study claim"),
        text("text", meaning="the claim in words"),
        text("estimand", "Estimand", meaning="what is estimated: the mean of what, over what"),
        *shared("arm reference outcome"),
        text("better", "Claim says", meaning="the direction that the claim asserts"),
        number(
            "margin",
            "of the outcome (fraction of images, natural logarithm)",
            "Margin",
            meaning="least difference that matters; of a claim on a level the number that it must lie below",
        ),
        number("above", "of the outcome", meaning="of a claim on a level: refuted if the interval lies above it"),
        text("test", "Test", meaning="how the comparison is tested"),
        text("family", "Family", meaning="what the claims share: their number, level and procedure"),
        text("fixed", "Fixed", meaning="since when the claim stands, and the digest of what is fixed"),
    ),
    main="claim arm reference outcome better margin estimand test family fixed",
    row="one comparison (reference and outcome) of a claim, or one claim on a level",
)
def registered_rows(inputs: Inputs) -> Rows:
    """Each claim's comparisons as the specification has them. A level claim's ``margin`` is ``below``, beside ``above``."""
    spec, rows = inputs.spec, []
    fixed = registered(spec)["claims"]
    for name, claim in spec.claims.items():
        averaged = f"mean over replicates of arm minus reference, in {len(fixed[name]['cells'])} cells"
        test, num, num_arms = "paired sign-flip test, inverted", claim.num_parts, len(claim.all_arms)
        if num > 1:
            test += f"; all {num} comparisons must hold, one at level / {num} refutes"
        if num_arms > 1:
            test += f"; any of {num_arms} arms supports at level / {num_arms}, all must fall to refute"
        for contrast in claim.contrasts():
            for outcome in claim.outcomes:
                row = _row(inputs, name, claim.text, _estimand(averaged, outcome.name), test)
                row |= {"arm": label(contrast.arm), "reference": label(contrast.reference)}
                rows.append(row | {"outcome": outcome.name, "better": outcome.better, "margin": outcome.margin})
    for name, level in spec.level_claims.items():
        averaged = f"mean over networks, in {len(fixed[name]['cells'])} cells"
        test = "sign-flip interval of the mean below margin, or above the other limit"
        row = _row(inputs, name, level.text, averaged, test)
        row |= {"reference": "", "outcome": level.outcome, "better": "lower"}
        rows += [row | {"arm": label(arm), "margin": level.below, "above": level.above} for arm in level.all_arms]
    return rows


def _estimand(averaged: str, outcome: str) -> str:
    """Of accuracy failures are part of it; a loss and smoothness are of networks that train."""
    return f"{averaged}, {'failures counted' if '/accuracy' in outcome else 'among networks that train'}"


def _row(inputs: Inputs, name: str, text: str, estimand: str, test: str) -> dict[str, Any]:
    held, amendment = inputs.registration, inputs.amendment
    since = f"{held['since']} ({held['digest']})" if held else "not registered"
    if name in amendment.post_hoc:
        since = f"post hoc, {amendment.words}"
    row = {"claim": name, "text": text, "estimand": estimand, "test": test}
    return row | {"family": _family(inputs.spec), "fixed": since}


def _family(spec: Spec) -> str:
    """What the claims share: ``Holm over 4 claims at 0.05``."""
    num = len(spec.all_claims)
    claims = f"{num} claim{'s' if num != 1 else ''} at {spec.alpha:g}"
    if spec.sequential is None:
        return f"Holm over {claims}; refuted at {spec.alpha / num:.3g}"
    looks = ", ".join(map(str, spec.looks))
    return f"Bonferroni over {claims}, spent over looks at {looks} blocks"
