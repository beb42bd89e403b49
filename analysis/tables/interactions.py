"""The tables of interactions, all together and by stratum."""

from analysis.effects.readings import POOLED
from analysis.inputs import Inputs
from analysis.words.columns import OF_OUTCOME, count, number, shared, tested_columns, text
from analysis.words.rows import Rows
from study.registry import TABLES

_COLUMNS = (
    *shared("study dataset"),
    text("arm", "Contrast", meaning="levels of the networks that are judged"),
    text("reference", "minus", meaning="levels that the arm is compared with"),
    text("factor", "Factor", meaning="the other factor, on which the effect may depend"),
    text("kind", meaning="difference (of the effects at level and base), slope, or slope per doubling of the level"),
    text("level", "Level", meaning="level of the other factor"),
    text("base", "against", meaning="the first level of the other factor"),
    *shared("stratum outcome scale"),
    number("effect_level", OF_OUTCOME, "Effect at level", "effect", meaning="mean effect at level"),
    number("effect_base", OF_OUTCOME, "Effect against", "effect", meaning="mean effect at base"),
    *tested_columns("Interaction", meaning="effect at level minus that at base, or its slope"),
    *shared("n_excluded n_failures"),
    count("n_strata", meaning="strata that are averaged"),
    *shared("label"),
)
_MAIN = "outcome effect_level effect_base estimate sd p_sign_flip n_pairs n_excluded n_failures label"
_ROW = (
    "one contrast, other factor, level, outcome and stratum of what is left; estimate is the effect at level minus that at "
    "base, or the slope over log2 of the levels, in the unit of the outcome's difference"
)
_FORMULA = (
    "within a replicate, the effect at a level of another factor minus the effect at its first level (or its slope per "
    "doubling of the level); sign-flip p, not adjusted; exploratory"
)


@TABLES.register(
    "interactions",
    formula=_FORMULA,
    source="https://github.com/google-research/tuning_playbook",
    title="Interactions: does an effect depend on another factor?",
    place=1.7,
    columns=_COLUMNS,
    main=f"arm reference factor level base dataset {_MAIN}",
    row=_ROW,
)
def interactions_rows(inputs: Inputs) -> Rows:
    """Every interaction of every contrast but the control's, averaged over the strata of what is left."""
    return [row for row in inputs.interactions if row["stratum"] == POOLED]


@TABLES.register(
    "interactions_by_stratum",
    formula=f"{_FORMULA}; a row for each stratum of what is left, where there are several",
    source="https://github.com/google-research/tuning_playbook",
    columns=_COLUMNS,
    main=f"arm reference factor level base dataset stratum {_MAIN}",
    row=_ROW,
)
def interactions_by_stratum_rows(inputs: Inputs) -> Rows:
    """The same in each stratum of what is left: one in which networks fail takes no other with it."""
    return [row for row in inputs.interactions if row["stratum"] != POOLED]
