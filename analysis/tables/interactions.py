"""https://github.com/google-research/tuning_playbook: the tables of interactions, all together and by stratum."""

import pyarrow as pa

from analysis.effects.paired import TESTED_FIELDS
from analysis.effects.readings import POOLED
from analysis.inputs import Inputs
from analysis.words.export import Column
from study.registry import TABLES

_TEXTS = ("study", "dataset", "arm", "reference", "factor", "kind", "level", "base", "stratum", "outcome", "scale")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("effect_level", pa.float64()),
        ("effect_base", pa.float64()),
        *TESTED_FIELDS,
        *((name, pa.int64()) for name in ("n_excluded", "n_failures", "n_strata")),
        ("label", pa.string()),
    ],
    metadata={
        "row": "one contrast, other factor, level, outcome and stratum of what is left; estimate is the effect at level "
        "minus that at base, or the slope over log2 of the levels, in the unit of the outcome's difference"
    },
)
_COLUMNS = (
    Column(heading="Contrast", name="arm"),
    Column(heading="minus", name="reference"),
    Column(heading="Factor", name="factor"),
    Column(heading="Level", name="level"),
    Column(heading="against", name="base"),
    Column(heading="Dataset", name="dataset"),
    Column(heading="Outcome", name="outcome", kind="outcome"),
    Column(heading="Effect at level", name="effect_level", kind="effect"),
    Column(heading="Effect against", name="effect_base", kind="effect"),
    Column(heading="Interaction", name="estimate", kind="effect", low="ci_low", high="ci_high"),
    Column(heading="Spread", name="sd", kind="effect"),
    Column(heading="p", name="p_sign_flip", kind="p"),
    Column(heading="Pairs", name="n_pairs", kind="number"),
    Column(heading="Left out", name="n_excluded", kind="number"),
    Column(heading="Failures", name="n_failures", kind="number"),
    Column(heading="Label", name="label"),
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
    optional=True,
    columns=_COLUMNS,
)
def interactions_table(inputs: Inputs) -> pa.Table:
    """Every interaction of every contrast but the control's, averaged over the strata of what is left."""
    rows = [row for row in inputs.interactions if row["stratum"] == POOLED]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@TABLES.register(
    "interactions_by_stratum",
    formula=f"{_FORMULA}; a row for each stratum of what is left, where there are several",
    source="https://github.com/google-research/tuning_playbook",
    columns=(*_COLUMNS[:6], Column(heading="Stratum", name="stratum"), *_COLUMNS[6:]),
)
def interactions_by_stratum_table(inputs: Inputs) -> pa.Table:
    """The same in each stratum of what is left: one in which networks fail takes no other with it."""
    rows = [row for row in inputs.interactions if row["stratum"] != POOLED]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
