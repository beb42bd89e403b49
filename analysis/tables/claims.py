"""The claims table, one row per claim and dataset, and the table of each claim's comparisons."""

from collections.abc import Sequence
from typing import Any

from analysis.claims.findings import Finding
from analysis.claims.judgement import Judgement
from analysis.claims.part import ClaimPart
from analysis.claims.rejudged import RULES
from analysis.effects.compare import failure_counts
from analysis.effects.controls import worst_state
from analysis.inputs import Inputs
from analysis.words.columns import count, floats, integer, number, p_value, shared, text
from analysis.words.rows import Rows
from search_spaces import LevelClaim
from study.registry import TABLES

_WORDS = ("text", "dataset", "verdict", "why", "sentence", "estimand", "reason", "change")
_EFFECT = "of the outcome (fraction of images, natural logarithm), positive in the claim's direction"
_PART = (
    *shared("arm reference outcome scale"),
    text("better", "Claim says", meaning="the direction that the claim asserts"),
    number(
        "effect",
        _EFFECT,
        "Effect",
        "effect",
        low="ci_low",
        high="ci_high",
        meaning="mean difference, positive where it speaks for the claim; of a level claim the mean",
    ),
    *floats(
        {
            "ci_low": "lower limit at the claim's level, of the hull of two intervals",
            "ci_high": "upper limit at the claim's level, of the hull of two intervals",
        },
        _EFFECT,
    ),
    text("interval", "Interval", meaning="which of two intervals is the wider: sign-flip, or test images"),
    *floats(
        {
            "sign_flip_low": "lower limit at the claim's level, by sign flips over replicates",
            "sign_flip_high": "upper limit at the claim's level, by sign flips over replicates",
        },
        _EFFECT,
    ),
    *floats("images_low images_high", _EFFECT),
    number("level", "probability", "Level", meaning="level at which support is tested"),
    number("level_refute", "probability", meaning="level at which refutation is tested"),
    number(
        "ci_high_refute",
        _EFFECT,
        meaning="upper limit at the level of refutation; below the margin the claim is refuted",
    ),
    number("margin", _EFFECT, "Margin", "size", meaning="least difference that matters, as the claim declares it"),
    number("sd_difference", _EFFECT, "Spread", "effect"),
    number(
        "smallest_detectable",
        _EFFECT,
        "Smallest detectable",
        "size",
        meaning="smallest effect that so many pairs would see, at their spread",
    ),
    number(
        "effect_survivors",
        _EFFECT,
        "Both trained",
        "effect",
        meaning="mean difference in pairs in which both networks completed",
    ),
    number("skewness", "of the differences", "Skewness", meaning="skewness of the differences"),
    p_value("p_symmetry", "p (symmetry)", meaning="p of D'Agostino's test that the differences are symmetric"),
    *shared("n_pairs n_excluded n_waiting"),
    count("n_datasets", meaning="datasets that are pooled; null on one"),
    count("arm_failures", "Arm failures", meaning="networks of the arm that collapsed or diverged"),
    count("arm_trainings", meaning="trainings of the arm that ended"),
    count("reference_failures", "Reference failures", meaning="networks of the reference that collapsed or diverged"),
    count("reference_trainings", meaning="trainings of the reference that ended"),
    *shared("mcnemar_p pairing_gain"),
)


@TABLES.register(
    "claims",
    formula="one row a claim and dataset: the verdict, and the comparison it hangs on, in the claim's direction",
    source="",
    columns=(
        *shared("study claim"),
        text("text", "Text", meaning="the claim in words"),
        *shared("dataset verdict"),
        text("why", "Undecided for", meaning="what an undecided claim lacks"),
        text("qualifier", "Label", meaning="what qualifies the verdict: a demonstration, changed claims"),
        text("sentence", "Answer", meaning="the verdict in a sentence"),
        text("estimand", meaning="what is estimated: the mean of what, over what"),
        text("reason", "Reason", meaning="why the verdict is so"),
        text("change", "What would change it", meaning="what would change the verdict"),
        integer("look", "identifier", meaning="of a sequential study: the look at which the claim was decided"),
        count("n_parts", meaning="comparisons that the claim has"),
        *_PART,
        text("aa", meaning="how the A/A control ended, the worst of its outcomes"),
        text("assay", meaning="whether a known difference is seen"),
    ),
    main="claim text dataset verdict why qualifier outcome effect level margin smallest_detectable n_pairs mcnemar_p reason "
    "change",
    row="one claim and dataset; numbers are those of the comparison its verdict hangs on",
    about={"rules": RULES},
)
def claims_rows(inputs: Inputs) -> Rows:
    """One row per claim and dataset. Numbers are of its deciding comparison, positive where they speak for the claim.

    A claim on a level has scale ``level``: ``effect`` is the mean over ``n_pairs`` networks of the outcome itself, and
    ``reference`` names the limits it is judged by. ``why`` says what an undecided claim lacks. ``assay`` is "seen", "not
    seen", "not run" or "not in this study"; ``aa`` says how the A/A control ended, the worst of its outcomes first.
    """
    return rows_of_claims(inputs.judgements, inputs.findings)


def rows_of_claims(judgements: Sequence[Judgement], found: Sequence[Finding]) -> Rows:
    """The rows of ``claims_rows``, from judgements and what they are in words."""
    numbers = {
        (judgement.name, judgement.dataset): {
            "look": judgement.look or None,
            "n_parts": len(judgement.parts),
            **(_level_numbers if isinstance(judgement.claim, LevelClaim) else _numbers)(judgement.deciding),
            **_controls(judgement),
        }
        for judgement in judgements
    }
    return [
        {
            "claim": finding.name,
            **{name: getattr(finding, name) for name in _WORDS},
            "qualifier": finding.label,
            **numbers[finding.name, finding.dataset],
        }
        for finding in found
    ]


@TABLES.register(
    "claim_parts",
    formula="one row a claim's comparison and dataset, in the claim's direction, at the claim's level",
    source="https://doi.org/10.1080/00401706.1982.10487790",
    title="Each comparison of the claims",
    place=1.1,
    always=True,
    columns=(
        *shared("study claim dataset"),
        text("verdict", "Alone", meaning="the verdict that the comparison would have alone"),
        text("obstacles", "In the way", meaning="what forbids a verdict on it"),
        *_PART,
    ),
    main="claim verdict arm reference outcome effect interval level margin smallest_detectable n_pairs pairing_gain "
    "n_excluded sd_difference skewness p_symmetry arm_failures reference_failures effect_survivors mcnemar_p better dataset "
    "obstacles",
    row="one comparison (reference and outcome) of a claim on a dataset",
)
def claim_parts_rows(inputs: Inputs) -> Rows:
    """One row per comparison of a claim, with the verdict it would have alone.

    Limits are of the hull of two intervals; ``interval`` says which is the wider: ``sign-flip``, or ``test images``, which
    counts both replicates and test images as drawn at random. ``skewness`` and ``p_symmetry`` (D'Agostino) check what sign
    flips assume: of lognormal differences intervals at 95% hold the mean in 85% of studies.
    """
    return [
        {"claim": judgement.name, "dataset": judgement.dataset}
        | _numbers(part)
        | {"verdict": "no verdict" if judgement.post_hoc else part.verdict}
        | {
            "obstacles": "; ".join(
                filter(None, (*judgement.controls, *(o.text for o in part.obstacles), judgement.amended))
            )
        }
        for judgement in inputs.judgements
        if not isinstance(judgement.claim, LevelClaim)
        for part in judgement.parts
    ]


def _numbers(part: ClaimPart) -> dict[str, Any]:
    row = part.row
    numbers = {name: row[name] for name in ("arm", "reference", "outcome", "scale", "sd_difference")}
    numbers |= {name: row[name] for name in ("n_pairs", "n_excluded", "n_waiting", "mcnemar_p", "pairing_gain")}
    for kind in ("sign_flip", "images"):
        numbers[f"{kind}_low"], numbers[f"{kind}_high"] = getattr(part, kind) or (None, None)
    for side in ("arm", "reference"):
        numbers[f"{side}_failures"], numbers[f"{side}_trainings"] = failure_counts(row, side)
    return numbers | {
        "n_datasets": part.num_datasets,
        "better": part.better,
        "effect": part.effect,
        "ci_low": part.low,
        "ci_high": part.high,
        "interval": "" if part.low is None else "test images" if part.counts_images else "sign-flip",
        "ci_high_refute": part.high_refute,
        "level": part.level,
        "level_refute": part.level_refute,
        "margin": part.margin,
        "smallest_detectable": part.smallest_detectable,
        "effect_survivors": part.survivors,
        "skewness": part.skewness,
        "p_symmetry": part.p_symmetry,
    }


def _level_numbers(part: ClaimPart) -> dict[str, Any]:
    names = ("arm", "reference", "outcome", "scale", "ci_low", "ci_high", "sd_difference", "n_pairs", "n_excluded")
    return {name: part.row[name] for name in (*names, "n_waiting")} | {
        "better": part.better,
        "effect": part.row["mean_difference"],
        "level": part.level,
        "level_refute": part.level_refute,
        "n_datasets": part.num_datasets,
    }


def _controls(judgement: Judgement) -> dict[str, Any]:
    assay = "not in this study"
    if judgement.assay:
        assay = {True: "seen", False: "not seen", None: "not run"}[judgement.assay.seen]
    return {"aa": worst_state(judgement.control) or "not in this study", "assay": assay}
