"""The tables of effects (arm minus reference, paired) and of the pairs behind them, and which strata are shown to people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.effects.compare import COUNTED_STATES, compare, pair_up, subtract
from analysis.effects.every_level import level_contrasts
from analysis.effects.image_variance import COLUMNS as IMAGES
from analysis.effects.image_variance import OUTCOME, Correct, ImageVariance, deciding_p
from analysis.effects.levels import LevelReading, level_readings
from analysis.effects.readings import POOLED, Reading, readings
from analysis.stats.holm import claim_p, directed_p, holm, padded
from analysis.trials.grid import ConfirmGrid, label
from analysis.trials.outcomes import ReadOutcome, explored_outcomes, main_outcomes, outcomes_of
from analysis.words.columns import OF_SCALE, count, flag, floats, number, p_value, schema_of, shared, text
from search_spaces import Contrast, Spec
from study.schema import FRACTION

COLUMNS = (
    *shared("study claim"),
    text("role", "Role", meaning="primary (a claim is judged on it), control, or exploratory"),
    *shared("dataset arm reference stratum outcome scale n_pairs n_excluded n_waiting n_unequal"),
    number(
        "mean_arm",
        "of the outcome",
        "Mean arm",
        "level",
        meaning="mean of the arm; a geometric mean where scale is log ratio",
    ),
    number(
        "mean_reference",
        "of the outcome",
        "Mean reference",
        "level",
        meaning="mean of the reference; a geometric mean where scale is log ratio",
    ),
    number(
        "mean_difference",
        OF_SCALE,
        "Difference",
        "effect",
        low="ci_low",
        high="ci_high",
        meaning="mean over replicates of arm minus reference",
    ),
    number("sd_difference", OF_SCALE, "Spread", "effect"),
    *floats("ci_low ci_high t_low t_high images_low images_high", OF_SCALE),
    number("images_se", OF_SCALE, meaning="standard error, replicates and test images drawn at random"),
    number("images_df", "degrees of freedom", meaning="degrees of freedom of the interval that counts test images"),
    p_value(
        "p_images",
        "p, test images counted",
        meaning="two-sided p where replicates and test images count as drawn at random",
    ),
    *shared("p_sign_flip"),
    p_value("p_holm", "p (Holm)", meaning="the claim's p, adjusted over all claims of the dataset by Holm's procedure"),
    *shared("pairing_gain"),
    count("n_images", meaning="test images that both sides of every pair have"),
    *(count(f"n_arm_{s}", f"Arm {s}", meaning=f"networks of the arm that ended {s}") for s in COUNTED_STATES),
    *(
        count(f"n_reference_{s}", f"Reference {s}", meaning=f"networks of the reference that ended {s}")
        for s in COUNTED_STATES
    ),
    *shared("mcnemar_p"),
    number("mean_difference_survivors", FRACTION, meaning="mean difference in pairs in which both networks completed"),
    flag("mean_verdict", meaning="whether a verdict may rest on the mean difference"),
    *shared("label note"),
)
SCHEMA = schema_of(COLUMNS, "one contrast, dataset, outcome and stratum")
DIFFERENCES = (
    *shared("study dataset arm reference stratum outcome scale block replicate"),
    *floats(
        {
            "arm_value": "mean of the arm's networks of the replicate",
            "reference_value": "mean of the reference's networks of the replicate",
            "difference": "arm_value minus reference_value, exactly 0 where they differ by rounding alone",
        },
        OF_SCALE,
    ),
)
_PAIR = schema_of(DIFFERENCES, "one eligible pair of replicates in one contrast, dataset, outcome and stratum")
MAX_STRATA = 4


def effects_table(
    grid: ConfirmGrid, correct: Correct | None = None, amended: str = "", *, main: bool = False
) -> pa.Table:
    """One row per contrast, dataset, outcome and stratum of the confirm phase (stratum ``all``: pooled over strata).

    ``main``: only the outcomes that the study is mainly read on (``main_outcomes``), which is all that a verdict needs.

    Differences are arm minus reference within a replicate; intervals hold at 1 - ``spec.alpha``. On the scale "log
    ratio" differences are of logarithms, and ``mean_arm`` and ``mean_reference`` are geometric means. Accuracies are
    composite (``analysis.trials.grid``); ``mean_difference_survivors`` is among pairs in which both networks completed.
    ``correct`` says which test images each network names rightly, for the interval of test accuracy that counts them
    (``images_low`` to ``n_images``); ``amended`` says in words how claims were changed after results were there, and joins
    every label. ``mean_verdict`` says whether a verdict may rest on the row's mean difference; ``note`` says why not, and
    everything that was left out.
    """
    spec, outcomes = grid.spec, (main_outcomes if main else outcomes_of)(grid.spec, grid.confirm)
    rows = _rows(grid, spec.all_contrasts(), outcomes, correct, amended)
    if not spec.sequential:  # Holm's procedure needs all claims at one time
        adjusted = {dataset: holm(ps) for dataset, ps in claim_ps(spec, rows, list(level_readings(grid))).items()}
        for row in rows:
            if row["role"] == "primary":
                row["p_holm"] = adjusted[row["dataset"]][row["claim"]]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def level_effects_table(grid: ConfirmGrid, correct: Correct | None = None, amended: str = "") -> pa.Table:
    """Rows of the same form for every level against the reference's (``level_contrasts``), which no claim names."""
    outcomes = explored_outcomes(grid.spec, grid.confirm)
    rows = _rows(grid, level_contrasts(grid.spec), outcomes, correct, amended)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _rows(
    grid: ConfirmGrid,
    contrasts: Iterable[Contrast],
    outcomes: Iterable[ReadOutcome],
    correct: Correct | None,
    amended: str,
) -> list[dict[str, Any]]:
    spec, images = grid.spec, ImageVariance(grid, correct or {})
    rows: list[dict[str, Any]] = []
    for reading in readings(grid, contrasts, outcomes):
        numbers = compare(reading, spec.alpha)
        numbers["mean_verdict"] &= spec.blocks > 1
        numbers |= images.numbers(reading, spec.alpha) if reading.outcome.name == OUTCOME else dict.fromkeys(IMAGES)
        rows += [reading.head | asked | numbers for asked in _askers(spec, reading, amended)]
    return rows


def _askers(spec: Spec, reading: Reading, amended: str) -> list[dict[str, str]]:
    """Who asks: each claim that names this contrast and outcome, else nobody."""
    labels = ["at these hyperparameters, no verdict"] if spec.blocks == 1 else []
    labels += ["demonstration"] if spec.demonstration else []
    labels += ["the interval counts one look"] if spec.sequential else []
    labels += [amended] if amended else []
    told = {"label": "; ".join(labels)}
    claims = [
        name
        for name, claim in spec.claims.items()
        if reading.outcome.name in [o.name for o in claim.outcomes] and reading.contrast in claim.contrasts()
    ]
    if claims:
        role = "primary" if reading.stratum == POOLED else "exploratory"
        return [told | {"claim": name, "role": role} for name in claims]
    return [told | {"claim": "", "role": "control" if reading.contrast == spec.control else "exploratory"}]


def claim_ps(
    spec: Spec, rows: Sequence[Mapping[str, Any]], levels: Sequence[LevelReading]
) -> dict[str, dict[str, float | None]]:
    """Dataset -> claim -> its p (``analysis.stats.holm.claim_p``), from rows of the effects table and readings of levels.

    A comparison or a level that the dataset lacks, or does not have yet, cannot be tested; its claim stays in the family.
    """
    found: dict[str, dict[str, float | None]] = {}
    primary = [row for row in rows if row["role"] == "primary"]
    for dataset in dict.fromkeys([*(row["dataset"] for row in primary), *(reading.dataset for reading in levels)]):
        family = found[dataset] = {}
        for name, claim in spec.claims.items():
            held = [row for row in primary if (row["dataset"], row["claim"]) == (dataset, name)]
            better = {outcome.name: outcome.better for outcome in claim.outcomes}
            arms = []
            for arm in claim.all_arms:
                ps = [_directed(row, better[row["outcome"]]) for row in held if row["arm"] == label(arm)]
                arms.append(padded(ps, claim.num_parts))
            family[name] = claim_p(arms)
        for name, level in spec.level_claims.items():
            own = [reading.p for reading in levels if (reading.dataset, reading.name) == (dataset, name)]
            family[name] = claim_p([padded(own, level.num_parts)])
    return found


def _directed(row: Mapping[str, Any], better: str) -> float | None:
    p = deciding_p(row) if row["mean_verdict"] else None
    return None if p is None else directed_p(p, row["mean_difference"], better)


def differences_table(grid: ConfirmGrid) -> pa.Table:
    """Every eligible pair of every contrast, on the outcomes that claims name, on their other scales, and on accuracy.

    ``difference`` is arm minus reference, exactly what the effects table takes the mean of.
    """
    parts: list[pa.Table] = [_PAIR.empty_table()]
    for reading in readings(grid, grid.spec.all_contrasts(), main_outcomes(grid.spec, grid.confirm)):
        a, b = pair_up(reading)
        used = np.flatnonzero(np.isfinite(a))
        values = {"arm_value": a[used], "reference_value": b[used], "difference": subtract(a[used], b[used])}
        columns: dict[str, Any] = {name: pa.repeat(text, len(used)) for name, text in reading.head.items()}
        columns |= {"block": grid.pairs[used, 0], "replicate": grid.pairs[used, 1], **values}
        parts.append(pa.Table.from_arrays([pa.array(columns[name]) for name in _PAIR.names], schema=_PAIR))
    return pa.concat_tables(parts).combine_chunks()


def contrast_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What names a contrast on a dataset in the effects and differences tables."""
    return row["arm"], row["reference"], row["dataset"]


def shown_strata(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, ...], dict[str, str]]:
    """Contrast -> its strata to show and their short names, the pooled one first.

    Strata are shown where there are two to ``MAX_STRATA`` of them: a single one is the pooled reading itself. Levels that
    all strata of a contrast share are left out of the names: ``attention=none depth=8`` is ``depth 8``.
    """
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for row in rows:
        strata = found.setdefault(contrast_key(row), {})
        if row["stratum"] != POOLED:
            strata[row["stratum"]] = None
    return {
        key: {POOLED: POOLED} | (_short(list(strata)) if 2 <= len(strata) <= MAX_STRATA else {})
        for key, strata in found.items()
    }


def _short(strata: list[str]) -> dict[str, str]:
    split = [stratum.split(" ") for stratum in strata]
    shared = set.intersection(*map(set, split))
    texts = [" ".join(part.replace("=", " ") for part in parts if part not in shared) for parts in split]
    return dict(zip(strata, texts, strict=True))
