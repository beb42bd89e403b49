"""Smoothness set by intervention, beside what an operator does to it.

If multiplication helps because it smooths, then smoothing the reference by a Jacobian penalty in its training loss should move
accuracy too. There are three kinds of rows: ``penalty`` (the reference with the penalty minus without), ``contrast`` (the arm
minus the reference, both without), ``contrast against penalty`` (the arm without minus the reference with). ``alike`` says
where arm and penalised reference are equally smooth, within the margins of the claim: there, what differs in accuracy is not
smoothness. The nearest penalty is chosen on the same data, so all of this is exploratory.
Source: https://arxiv.org/abs/1908.02729
"""

from collections.abc import Iterator
from typing import Any

from analysis.effects.compare import compare, failure_counts
from analysis.effects.paired import exploratory
from analysis.effects.readings import POOLED, readings
from analysis.inputs import Inputs
from analysis.trials.outcomes import METRIC_OUTCOMES, ReadOutcome, outcomes_of
from analysis.words.columns import OF_OUTCOME, flag, floats, number, shared, text
from analysis.words.rows import Rows, grouped
from search_spaces import Claim, Contrast, Spec
from study.registry import TABLES

PENALTY = "jacobian_penalty"
AGAINST = "contrast against penalty"
_NUMBERS = ("mean_difference", "sd_difference", "ci_low", "ci_high", "p_sign_flip")
_COUNTS = ("n_pairs", "n_excluded", "n_waiting", "n_unequal")


@TABLES.register(
    "intervention",
    formula="smoothness set by a Jacobian penalty on the reference, beside the contrast's own effect, and one against the "
    "other; alike: no smoothness outcome of the claim differs by its margin; exploratory",
    source="https://arxiv.org/abs/1908.02729",
    title="Smoothness by intervention",
    place=2.7,
    columns=(
        *shared("study claim dataset"),
        text(
            "kind",
            "Comparison",
            meaning="penalty (reference with it minus without), contrast (both without), contrast against penalty",
        ),
        *shared("arm reference"),
        number("penalty", "weight of the penalty", meaning="weight of the Jacobian penalty"),
        *shared("outcome scale"),
        number(
            "mean_difference",
            OF_OUTCOME,
            "Difference",
            "effect",
            low="ci_low",
            high="ci_high",
            meaning="mean over replicates of arm minus reference",
        ),
        number("sd_difference", OF_OUTCOME, "Spread", "effect"),
        *floats("ci_low ci_high", OF_OUTCOME),
        *shared("p_sign_flip n_pairs n_excluded n_waiting n_unequal n_failures"),
        flag("alike", "As smooth", meaning="whether no smoothness outcome of the claim differs by its margin"),
        *shared("label note"),
    ),
    main="claim dataset kind arm reference outcome mean_difference sd_difference p_sign_flip n_pairs n_excluded n_failures "
    "alike label note",
    row="one comparison with or without a Jacobian penalty, dataset and outcome, pooled over strata",
)
def intervention_rows(inputs: Inputs) -> Rows:
    """One row per comparison and outcome, for each claim on a smoothness statistic, in a study whose factors hold the penalty.

    ``penalty`` is that of the comparison (of ``contrast``: none, 0). Empty where the penalty is no factor, or has no level 0.
    """
    spec = inputs.spec
    outcomes = {outcome.name: outcome for outcome in outcomes_of(spec, inputs.trials)}
    rows: Rows = []
    for name, claim in spec.claims.items():
        smooth = [outcome.name for outcome in claim.outcomes if outcomes[outcome.name].is_estimate]
        if not smooth or 0 not in _penalties(spec):
            continue
        read = [outcomes[outcome] for outcome in [*smooth, METRIC_OUTCOMES[0]]]
        for kind, penalty, contrast in _comparisons(spec, claim):
            found = [row for row in _rows(inputs, contrast, read) if row["n_pairs"] or row["n_excluded"]]
            if kind == AGAINST:
                _say_alike(claim, found)
            head = {"claim": name, "kind": kind, "penalty": penalty, "label": exploratory(spec)}
            rows += [head | row for row in found]
    return rows


def _penalties(spec: Spec) -> list[float]:
    """Weights of the penalty among the study's levels, in increasing order."""
    return sorted({float(level) for level in spec.levels_of(PENALTY)})


def _comparisons(spec: Spec, claim: Claim) -> Iterator[tuple[str, float, Contrast]]:
    """What the claim's contrasts become with a penalty on one side; none where a contrast is on the penalty itself."""
    weights = [weight for weight in _penalties(spec) if weight > 0]
    for contrast in claim.contrasts():
        if PENALTY not in contrast.arm:
            arm, reference = contrast.arm | {PENALTY: 0.0}, contrast.reference | {PENALTY: 0.0}
            yield "contrast", 0.0, Contrast(arm=arm, reference=reference)
            for weight in weights:
                penalised = contrast.reference | {PENALTY: weight}
                yield "penalty", weight, Contrast(arm=penalised, reference=reference)
                yield AGAINST, weight, Contrast(arm=arm, reference=penalised)


def _rows(inputs: Inputs, contrast: Contrast, outcomes: list[ReadOutcome]) -> Iterator[dict[str, Any]]:
    for reading in readings(inputs.grid, [contrast], outcomes):
        if reading.stratum != POOLED:
            continue
        numbers = compare(reading, inputs.spec.alpha)
        failures = sum(failure_counts(numbers, side)[0] for side in ("arm", "reference"))
        yield reading.head | {name: numbers[name] for name in (*_NUMBERS, *_COUNTS, "note")} | {"n_failures": failures}


def _say_alike(claim: Claim, rows: Rows) -> None:
    """Per dataset: whether every smoothness outcome of the claim differs by less than its margin; null without pairs."""
    margins = {outcome.name: outcome.margin for outcome in claim.outcomes}
    for here in grouped(rows, "dataset").values():
        sizes = [
            None if row["mean_difference"] is None else abs(row["mean_difference"]) < margins[row["outcome"]]
            for row in here
            if row["outcome"] in margins and "/" not in row["outcome"]
        ]
        for row in here:
            row["alike"] = None if None in sizes else all(sizes)
