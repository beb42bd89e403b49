"""The main tables: trials, effects, curves and differences."""

import pyarrow as pa

from analysis.inputs import Inputs
from analysis.words.export import Column
from study.registry import TABLES


@TABLES.register(
    "trials",
    formula="one row a replicate: identity, settings, cost, metrics, estimates",
    source="",
    columns=(
        Column(heading="Cell", name="cell"),
        Column(heading="Phase", name="phase"),
        Column(heading="Block", name="search_block", kind="number"),
        Column(heading="Replicate", name="replicate", kind="number"),
        Column(heading="Trial", name="number", kind="number"),
        Column(heading="State", name="state"),
        Column(heading="Epochs", name="epochs", kind="number"),
        Column(heading="Parameters", name="params", kind="number"),
        Column(heading="Validation accuracy", name="val/accuracy", kind="number"),
        Column(heading="Test accuracy", name="test/accuracy", kind="number"),
        Column(heading="Test loss", name="test/loss", kind="number"),
        Column(heading="At boundary", name="boundary"),
    ),
)
def _trials(inputs: Inputs) -> pa.Table:
    return inputs.trials


@TABLES.register(
    "effects",
    formula="one row a contrast, dataset, outcome and stratum: mean of arm minus reference over replicates",
    source="https://doi.org/10.1080/01621459.1969.10501057",
    columns=(
        Column(heading="Claim", name="claim"),
        Column(heading="Role", name="role"),
        Column(heading="Dataset", name="dataset"),
        Column(heading="Arm", name="arm"),
        Column(heading="Reference", name="reference"),
        Column(heading="Stratum", name="stratum"),
        Column(heading="Outcome", name="outcome", kind="outcome"),
        Column(heading="Pairs", name="n_pairs", kind="number"),
        Column(heading="Left out", name="n_excluded", kind="number"),
        Column(heading="Mean arm", name="mean_arm", kind="level"),
        Column(heading="Mean reference", name="mean_reference", kind="level"),
        Column(heading="Difference", name="mean_difference", kind="effect", low="ci_low", high="ci_high"),
        Column(heading="Spread", name="sd_difference", kind="effect"),
        *(
            Column(heading=f"{side.capitalize()} {state}", name=f"n_{side}_{state}", kind="number")
            for side in ("arm", "reference")
            for state in ("collapsed", "diverged")
        ),
        Column(heading="p", name="p_sign_flip", kind="p"),
        Column(heading="p, test images counted", name="p_images", kind="p"),
        Column(heading="p (Holm)", name="p_holm", kind="p"),
        Column(heading="Pairing gain", name="pairing_gain", kind="number"),
        Column(heading="Label", name="label"),
        Column(heading="Note", name="note"),
    ),
)
def _effects(inputs: Inputs) -> pa.Table:
    return inputs.effects


@TABLES.register(
    "curves",
    formula="one row a replicate, metric and epoch",
    source="",
    formats=("parquet",),
)
def _curves(inputs: Inputs) -> pa.Table:
    return inputs.curves


@TABLES.register(
    "differences",
    formula="one row an eligible pair of replicates: the values of arm and reference, and their difference",
    source="",
    formats=("parquet", "csv"),
)
def _differences(inputs: Inputs) -> pa.Table:
    return inputs.differences
