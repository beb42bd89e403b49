"""Smoother when, and at what accuracy: the statistics in the middle of training, arm minus reference, epoch by epoch.

The networks are those of the confirmed trainings before their schedule has ended: not annealed, on validation images.
"""

import numpy as np
import pyarrow.compute as pc

from analysis.effects.compare import subtract
from analysis.effects.readings import POOLED, readings
from analysis.inputs import Inputs
from analysis.stats.spread import mean, p_value, spread
from analysis.tables.matched import eligible, of_claims, of_sides, smoothness_outcomes, training_paths
from analysis.words.columns import OF_SCALE, count, number, shared, spread_columns
from analysis.words.rows import Rows
from study.registry import TABLES
from study.schema import FRACTION


@TABLES.register(
    "trajectory",
    formula="smoothness during training: arm minus reference of the networks after each epoch measured, by replicate, beside "
    "the validation accuracy both had reached; not annealed, exploratory",
    source="",
    title="Smoothness during training",
    place=2.3,
    shown=lambda inputs, table: of_claims(inputs, table.filter(pc.equal(table["stratum"], POOLED))),
    columns=(
        *shared("study dataset arm reference stratum outcome scale label epoch n_pairs"),
        count("n_missing", "Missing", meaning="pairs without a converged value at the epoch"),
        number(
            "arm_val_accuracy",
            FRACTION,
            "Accuracy, arm",
            "percent",
            meaning="mean validation accuracy of the arm's networks then",
        ),
        number(
            "reference_val_accuracy",
            FRACTION,
            "Accuracy, reference",
            "percent",
            meaning="mean validation accuracy of the reference's networks then",
        ),
        *spread_columns(OF_SCALE, "Difference", meaning="mean over replicates of arm minus reference at the epoch"),
        *shared("p_sign_flip"),
    ),
    main="dataset arm reference stratum outcome epoch n_pairs n_missing arm_val_accuracy reference_val_accuracy mean sd "
    "p_sign_flip label",
    row="one contrast, dataset, stratum, outcome and epoch; arm minus reference by replicate",
)
def trajectory_rows(inputs: Inputs) -> Rows:
    """One row per reading and epoch at which it was measured; empty where nothing was measured during training.

    Pairs are those whose networks completed in the end; ``n_missing`` of them lack a converged value at the epoch.
    """
    grid, outcomes = inputs.grid, smoothness_outcomes(inputs)
    paths = training_paths(inputs, outcomes)
    if paths is None:
        return []
    rows: Rows = []
    for reading in readings(grid, inputs.spec.all_contrasts(), outcomes):
        arm, reference = of_sides(paths.values[reading.outcome.name], reading)
        ok = eligible(reading)
        if not len(arm) or not np.isfinite(arm).any():
            continue
        d = subtract(arm, reference).mean(axis=0)
        ours, theirs = (side.mean(axis=0) for side in of_sides(paths.accuracy, reading))
        head = reading.head | {"label": "not annealed"}
        for k, epoch in enumerate(paths.points):
            used = ok & np.isfinite(d[:, k])
            if not used.any():
                continue
            row = head | {"epoch": int(epoch), "n_pairs": int(used.sum()), "n_missing": int((ok & ~used).sum())}
            row |= {"arm_val_accuracy": mean(ours[used, k]), "reference_val_accuracy": mean(theirs[used, k])}
            rows.append(row | spread(d[used, k], inputs.spec.alpha) | {"p_sign_flip": p_value(d[used, k])})
    return rows
