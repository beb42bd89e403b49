"""Every verdict again at a share of the epochs: a conclusion may depend on the budget.

Each winner's shortened trainings (phase ``short``: the whole schedule in fewer epochs) take the place of its full one, and
everything is judged as before: same pairs, same A/A control, same rule. Whether a known difference is seen is asked of the
study as a whole. Exploratory: a study's verdict is that at the full budget.
Source: https://arxiv.org/abs/1909.03004
"""

from dataclasses import replace

from analysis.claims.findings import findings
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from analysis.tables.claims import rows_of_claims
from analysis.trials.shortened import FULL, at_share
from analysis.words.columns import count, flag, floats, number, shared, text
from analysis.words.rows import Rows, grouped
from study.registry import TABLES

_EFFECT = "of the outcome, positive in the claim's direction"


@TABLES.register(
    "budget_verdicts",
    formula="each claim's verdict were the epochs fewer, beside that at the full budget: fully annealed trainings of the same "
    "winners on the same seeds take the place of the confirmed ones. Exploratory",
    source="https://arxiv.org/abs/1909.03004",
    title="Verdicts at smaller budgets",
    place=1.8,
    columns=(
        *shared("study claim dataset"),
        number(
            "share",
            "of the epochs",
            "Share of the epochs",
            "percent",
            meaning="share of the epochs that these trainings had",
        ),
        text("verdict", "Verdict", meaning="what the claim would be at this budget"),
        text("full_verdict", "At the full budget", meaning="the verdict at the full budget"),
        flag("agrees", meaning="whether the two verdicts are one"),
        *shared("outcome scale"),
        number(
            "effect",
            _EFFECT,
            "Effect",
            "effect",
            low="ci_low",
            high="ci_high",
            meaning="mean difference of the comparison that the verdict hangs on",
        ),
        *floats("ci_low ci_high", _EFFECT),
        number("margin", _EFFECT, "Margin", "size", meaning="least difference that matters, as the claim declares it"),
        count("n_pairs", "Pairs", meaning="pairs of replicates that count"),
        text("reason", "Reason", meaning="why the verdict is so"),
    ),
    main="claim dataset share verdict full_verdict outcome effect margin n_pairs reason",
    row="one claim, dataset and share of the epochs; exploratory below the whole",
)
def budget_rows(inputs: Inputs) -> Rows:
    """One row per claim, dataset and share, the full budget last; empty where no training is shortened."""
    shares = sorted(inputs.spec.budget.shortened)
    if not shares:
        return []
    full = build_table(inputs, "claims").to_pylist()
    verdicts = {(row["claim"], row["dataset"]): row["verdict"] for row in full}
    rows = []
    for share in [*shares, FULL]:
        for row in full if share == FULL else _rows_at(inputs, share):
            known = verdicts.get((row["claim"], row["dataset"]), "")
            rows.append({**row, "share": share, "full_verdict": known, "agrees": row["verdict"] == known})
    return [row for same in grouped(rows, "claim", "dataset").values() for row in same]


def _rows_at(inputs: Inputs, share: float) -> Rows:
    at = replace(inputs, contents=at_share(inputs.spec, inputs.contents, share), whole=inputs)
    # the table has no sentences, which would need every interaction
    return rows_of_claims(at.judgements, findings(at.spec, at.judgements))
