"""The tables of interactions, all together and by stratum."""

from analysis.effects.readings import POOLED
from analysis.inputs import Inputs
from analysis.words.columns import OF_OUTCOME, count, number, shared, tested_columns, text
from analysis.words.rows import Rows
from study.registry import TABLES

_COLUMNS = (
    *shared("study dataset"),
    text("arm", "Contrast"),
    text("reference", "minus"),
    text("factor", "Factor"),
    text("kind"),
    text("level", "Level"),
    text("base", "against"),
    *shared("stratum outcome scale"),
    number("effect_level", OF_OUTCOME, "Effect at level", "effect"),
    number("effect_base", OF_OUTCOME, "Effect against", "effect"),
    *tested_columns("Interaction"),
    *shared("n_excluded n_failures"),
    count("n_strata"),
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
