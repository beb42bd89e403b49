"""The main tables: trials, effects, curves and differences."""

import pyarrow as pa

from analysis.effects.table import COLUMNS, DIFFERENCES
from analysis.inputs import Inputs
from analysis.words.columns import integer, number, shared, text
from study.registry import TABLES
from study.schema import FRACTION


@TABLES.register(
    "trials",
    formula="one row a replicate: identity, settings, cost, metrics, estimates",
    source="",
    # those that have a heading; the others follow from the specification and carry their units
    columns=(
        *shared("cell"),
        text("phase", "Phase"),
        integer("search_block", "identifier", "Block"),
        *shared("replicate number"),
        text("state", "State"),
        integer("epochs", "epochs", "Epochs"),
        *shared("params"),
        number("val/accuracy", FRACTION, "Validation accuracy"),
        number("test/accuracy", FRACTION, "Test accuracy"),
        number("test/loss", "nat", "Test loss"),
        text("boundary", "At boundary"),
    ),
    main="cell phase search_block replicate number state epochs params val/accuracy test/accuracy test/loss boundary",
)
def _trials(inputs: Inputs) -> pa.Table:
    return inputs.trials


@TABLES.register(
    "effects",
    formula="one row a contrast, dataset, outcome and stratum: mean of arm minus reference over replicates",
    source="https://doi.org/10.1080/01621459.1969.10501057",
    columns=COLUMNS,
    main="claim role dataset arm reference stratum outcome n_pairs n_excluded mean_arm mean_reference mean_difference "
    "sd_difference n_arm_collapsed n_arm_diverged n_reference_collapsed n_reference_diverged p_sign_flip p_images p_holm "
    "pairing_gain label note",
)
def _effects(inputs: Inputs) -> pa.Table:
    return inputs.effects


@TABLES.register("curves", formula="one row a replicate, metric and epoch", source="", columns=(), formats=("parquet",))
def _curves(inputs: Inputs) -> pa.Table:
    return inputs.curves


@TABLES.register(
    "differences",
    formula="one row an eligible pair of replicates: the values of arm and reference, and their difference",
    source="",
    columns=DIFFERENCES,
    formats=("parquet", "csv"),
)
def _differences(inputs: Inputs) -> pa.Table:
    return inputs.differences
