"""The claims table, one row a claim and dataset, and beside it each of a claim's comparisons."""

from typing import Any

import numpy as np
import pyarrow as pa

from analysis.claims.judgement import Judgement, LevelJudgement
from analysis.claims.part import FAILURES, ClaimPart
from analysis.inputs import Inputs
from analysis.trials.grid import label
from analysis.words.export import Column
from study.registry import TABLES

_EFFECT_UNIT = {"unit": "of the outcome (fraction of images, natural logarithm), positive in the claim's direction"}
_TEXTS = ("study", "claim", "text", "dataset", "verdict", "qualifier", "reason", "sentence", "change")
_WORDS = ("text", "dataset", "verdict", "reason", "sentence", "change")
# The two intervals of which the wider one is ci_low to ci_high.
_KINDS = ("sign_flip", "images")
_PART = [
    *((name, pa.string()) for name in ("arm", "reference", "outcome", "scale", "better")),
    *(pa.field(name, pa.float64(), metadata=_EFFECT_UNIT) for name in ("effect", "ci_low", "ci_high")),
    ("interval", pa.string()),
    *(pa.field(f"{kind}_{end}", pa.float64(), metadata=_EFFECT_UNIT) for kind in _KINDS for end in ("low", "high")),
    *((name, pa.float64()) for name in ("level", "level_of_k")),
    *(
        pa.field(name, pa.float64(), metadata=_EFFECT_UNIT)
        for name in ("ci_high_of_k", "margin", "sd_difference", "smallest_detectable", "effect_failures_at_chance")
    ),
    *((name, pa.int64()) for name in ("n_pairs", "n_excluded", "n_waiting", "n_datasets")),
    *((f"{side}_{name}", pa.int64()) for side in ("arm", "reference") for name in ("failures", "trainings")),
    *((name, pa.float64()) for name in ("mcnemar_p", "pairing_gain")),
]
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.int64()) for name in ("look", "n_parts")),
        *_PART,
        ("aa_inside", pa.bool_()),
        ("assay", pa.string()),
    ],
    metadata={"row": "one claim and dataset; numbers are those of the comparison its verdict hangs on"},
)
PARTS_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("study", "claim", "dataset", "verdict", "obstacles")), *_PART],
    metadata={"row": "one comparison (reference and outcome) of a claim on a dataset"},
)


@TABLES.register(
    "claims",
    formula="one row a claim and dataset: the verdict, and the comparison it hangs on, in the claim's direction",
    source="",
    columns=(
        Column(heading="Claim", name="claim"),
        Column(heading="Text", name="text"),
        Column(heading="Dataset", name="dataset"),
        Column(heading="Verdict", name="verdict"),
        Column(heading="Label", name="qualifier"),
        Column(heading="Outcome", name="outcome", kind="outcome"),
        Column(heading="Effect", name="effect", kind="effect", low="ci_low", high="ci_high"),
        Column(heading="Level", name="level", kind="number"),
        Column(heading="Margin", name="margin", kind="size"),
        Column(heading="Smallest detectable", name="smallest_detectable", kind="size"),
        Column(heading="Pairs", name="n_pairs", kind="number"),
        Column(heading="McNemar p", name="mcnemar_p", kind="p"),
        Column(heading="Reason", name="reason"),
        Column(heading="What would change it", name="change"),
    ),
)
def claims_table(inputs: Inputs) -> pa.Table:
    """One row a claim and dataset. Numbers are of its deciding comparison, positive where they speak for the claim.

    A claim on a level has scale ``level``: ``effect`` is the mean over ``n_pairs`` networks of the outcome itself, and
    ``reference`` names the limits it is judged by. ``assay`` is "seen", "not seen", "not run" or "not in this study";
    ``aa_inside`` is null without a finished control.
    """
    numbers = {
        (judgement.name, judgement.dataset): {
            "look": judgement.look or None,
            "n_parts": len(judgement.parts),
            "aa_inside": judgement.control.inside if judgement.control else None,
            "assay": _assay(judgement),
            **_numbers(judgement.deciding),
        }
        for judgement in inputs.judgements
    }
    numbers |= {(j.reading.name, j.reading.dataset): _level_numbers(j) for j in inputs.level_judgements}
    rows = [
        {
            "study": inputs.spec.name,
            "claim": finding.name,
            **{name: getattr(finding, name) for name in _WORDS},
            "qualifier": finding.label,
            **numbers[finding.name, finding.dataset],
        }
        for finding in inputs.findings
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@TABLES.register(
    "claim_parts",
    formula="one row a claim's comparison and dataset, in the claim's direction, at the claim's level",
    source="https://doi.org/10.1080/00401706.1982.10487790",
    title="Each comparison of the claims",
    place=1.1,
    columns=(
        Column(heading="Claim", name="claim"),
        Column(heading="Alone", name="verdict"),
        Column(heading="Arm", name="arm"),
        Column(heading="Reference", name="reference"),
        Column(heading="Outcome", name="outcome", kind="outcome"),
        Column(heading="Effect", name="effect", kind="effect", low="ci_low", high="ci_high"),
        Column(heading="Interval", name="interval"),
        Column(heading="Level", name="level", kind="number"),
        Column(heading="Margin", name="margin", kind="size"),
        Column(heading="Smallest detectable", name="smallest_detectable", kind="size"),
        Column(heading="Pairs", name="n_pairs", kind="number"),
        Column(heading="Pairing gain", name="pairing_gain", kind="number"),
        Column(heading="Left out", name="n_excluded", kind="number"),
        Column(heading="Spread", name="sd_difference", kind="effect"),
        Column(heading="Arm failures", name="arm_failures", kind="number"),
        Column(heading="Reference failures", name="reference_failures", kind="number"),
        Column(heading="Failures at chance", name="effect_failures_at_chance", kind="effect"),
        Column(heading="McNemar p", name="mcnemar_p", kind="p"),
        Column(heading="Claim says", name="better"),
        Column(heading="Dataset", name="dataset"),
        Column(heading="In the way", name="obstacles"),
    ),
)
def claim_parts_table(inputs: Inputs) -> pa.Table:
    """One row a comparison of a claim, with the verdict it would have alone (at level / k where that refutes).

    ``interval`` says which of the two decides, the wider one: ``sign-flip``, or ``test images``, which counts both
    replicates and test images as drawn at random.
    """
    rows = [
        _head(inputs, judgement)
        | _numbers(part)
        | {"verdict": "no verdict" if judgement.post_hoc else part.verdict}
        | {"obstacles": "; ".join(filter(None, (*judgement.controls, *part.obstacles, judgement.amended)))}
        for judgement in inputs.judgements
        for part in judgement.parts
    ]
    return pa.Table.from_pylist(rows, schema=PARTS_SCHEMA)


def _head(inputs: Inputs, judgement: Judgement) -> dict[str, Any]:
    named = {"study": inputs.spec.name, "claim": judgement.name, "dataset": judgement.dataset}
    return named | {"verdict": judgement.verdict}


def _numbers(part: ClaimPart) -> dict[str, Any]:
    row = part.row
    numbers = {name: row[name] for name in ("arm", "reference", "outcome", "scale", "sd_difference")}
    numbers |= {name: row[name] for name in ("n_pairs", "n_excluded", "n_waiting", "mcnemar_p", "pairing_gain")}
    for kind in _KINDS:
        numbers[f"{kind}_low"], numbers[f"{kind}_high"] = getattr(part, kind) or (None, None)
    for side in ("arm", "reference"):
        failed = sum(row[f"n_{side}_{state}"] for state in FAILURES)
        numbers |= {f"{side}_failures": failed, f"{side}_trainings": failed + row[f"n_{side}_completed"]}
    return numbers | {
        "n_datasets": part.num_datasets,
        "better": part.outcome.better,
        "effect": part.effect,
        "ci_low": part.low,
        "ci_high": part.high,
        "interval": "" if part.low is None else "test images" if part.counts_images else "sign-flip",
        "ci_high_of_k": part.high_of_k,
        "level": part.level,
        "level_of_k": part.level_of_k,
        "margin": part.outcome.margin,
        "smallest_detectable": part.smallest_detectable,
        "effect_failures_at_chance": part.at_chance,
    }


def _level_numbers(judgement: LevelJudgement) -> dict[str, Any]:
    reading, claim = judgement.reading, judgement.reading.claim
    values, limits = np.array(reading.values), judgement.limits or (None, None)
    return {
        "look": judgement.look or None,
        "n_parts": 1,
        "arm": label(claim.arm),
        "reference": f"below {claim.below:g}, above {claim.above:g}",
        "outcome": claim.outcome,
        "scale": "level",
        "better": "lower",
        "effect": float(values.mean()) if len(values) else None,
        "ci_low": limits[0],
        "ci_high": limits[1],
        "level": judgement.level,
        "level_of_k": judgement.level,
        "sd_difference": float(values.std(ddof=1)) if len(values) > 1 else None,
        "n_pairs": len(values),
        "n_datasets": len(values) if reading.unit == "dataset" else None,
        "n_excluded": reading.num_left_out,
        "n_waiting": reading.num_waiting,
    }


def _assay(judgement: Judgement) -> str:
    if judgement.assay is None:
        return "not in this study"
    return {True: "seen", False: "not seen", None: "not run"}[judgement.assay.seen]
