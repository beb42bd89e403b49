"""What ``run`` ends with: the main effects as rows of text, and what to know before believing them, in sentences.

Drawing is left to the caller; nothing here knows a terminal.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from analysis.control import aa_results
from analysis.effects import POOLED
from analysis.export import Column, text_rows
from search_spaces.spec import Spec

MAX_STRATA = 4
COLUMNS = (
    Column(heading="Arm", name="arm"),
    Column(heading="Reference", name="reference"),
    Column(heading="Dataset", name="dataset"),
    Column(heading="Stratum", name="stratum"),
    Column(heading="Outcome", name="outcome"),
    Column(heading="Pairs", name="n_pairs", kind="number"),
    Column(heading="Arm mean", name="mean_arm", kind="number"),
    Column(heading="Reference mean", name="mean_reference", kind="number"),
    Column(heading="Difference", name="mean_difference", kind="interval", low="ci_low", high="ci_high"),
    Column(heading="p", name="p_sign_flip", kind="p"),
    Column(heading="Claim", name="claim"),
    Column(heading="p (Holm)", name="p_holm", kind="p"),
    Column(heading="Note", name="note"),
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """``headings`` and ``rows`` of one table of text, the same rows as numbers, and ``sentences`` to print below it."""

    headings: list[str]
    rows: list[list[str]]
    effects: pa.Table
    sentences: list[str]


def summary(spec: Spec, effects: pa.Table) -> Summary:
    """Test accuracy for every contrast and each claim's other outcomes for its own, pooled and by stratum.

    Strata are shown where a contrast has two to ``MAX_STRATA`` of them; the effects table has all.
    """
    claimed = {outcome.name for claim in spec.claims.values() for outcome in claim.outcomes}
    keys = effects.select(["arm", "reference", "dataset", "stratum", "outcome", "claim"]).to_pylist()
    strata: dict[tuple[str, str, str], set[str]] = {}
    for key in keys:
        strata.setdefault((key["arm"], key["reference"], key["dataset"]), set()).add(key["stratum"])
    kept = []
    for key in keys:
        num = len(strata[key["arm"], key["reference"], key["dataset"]] - {POOLED})
        main = key["outcome"] == "test/accuracy" or (key["claim"] and key["outcome"] in claimed)
        kept.append(bool(main) and (key["stratum"] == POOLED or 2 <= num <= MAX_STRATA))
    table = effects.filter(pa.array(kept, pa.bool_()))
    return Summary(
        headings=[column.heading for column in COLUMNS],
        rows=text_rows(table, COLUMNS),
        effects=table,
        sentences=_sentences(spec, effects),
    )


def _sentences(spec: Spec, effects: pa.Table) -> list[str]:
    sentences = [result.sentence() for result in aa_results(spec, effects)] or ["This study has no A/A control."]
    if spec.blocks == 1:
        sentences.append("One search block: effects hold at these hyperparameters and carry no verdict.")
    if spec.demonstration:
        sentences.append("A demonstration: it shows the method at work and decides nothing.")
    primary = effects.filter(pc.equal(effects["role"], "primary"))
    without = sorted(set(primary.filter(pc.invert(primary["mean_verdict"]))["claim"].to_pylist()))
    if without:
        sentences.append(f"No verdict on a mean difference for {', '.join(without)}; the note of each row says why.")
    sentences.append(f"Intervals: {1 - spec.alpha:.0%}, by inverting the sign-flip test; p is two-sided.")
    return sentences
