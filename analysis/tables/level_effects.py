"""The table of every level against the control's reference: what adding a level does, without a contrast for it."""

import pyarrow.compute as pc

from analysis.effects.readings import POOLED
from analysis.effects.table import COLUMNS
from analysis.inputs import Inputs
from analysis.words.columns import SIGN_FLIP, p_value
from analysis.words.rows import Rows
from study.registry import TABLES

_P = p_value("p_sign_flip", "p (exploratory)", meaning=SIGN_FLIP)
# no claim asks: what a verdict needs has no place
_LEFT_OUT = ("claim", "role", "p_holm", "mean_verdict")


@TABLES.register(
    "level_effects",
    formula="each level against that of the control's reference (of the first cell, without a control), all else equal, where "
    "no claim or contrast compares them; exploratory, not adjusted, no verdict",
    source="",
    title="Every level against the reference (exploratory)",
    place=1.3,
    columns=tuple(_P if column.name == _P.name else column for column in COLUMNS if column.name not in _LEFT_OUT),
    main="dataset arm reference stratum outcome n_pairs n_excluded mean_difference sd_difference n_arm_collapsed "
    "n_arm_diverged p_sign_flip label note",
    row="one level, dataset, outcome and stratum",
    shown=lambda inputs, table: table.filter(pc.equal(table["stratum"], POOLED)),
)
def level_effects_rows(inputs: Inputs) -> Rows:
    """The rows of ``Inputs.level_effects``."""
    rows: Rows = inputs.level_effects.to_pylist()
    return rows
