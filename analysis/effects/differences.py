"""The pairs behind the effects, one row per replicate: every dot of a figure."""

from typing import Any

import numpy as np
import pyarrow as pa

from analysis.effects.compare import pair_up, subtract
from analysis.effects.readings import readings
from analysis.trials.grid import ConfirmGrid
from analysis.trials.outcomes import METRIC_OUTCOMES, ReadOutcome, other_scales, outcomes_of
from analysis.words.columns import OF_SCALE, floats, schema_of, shared
from search_spaces.spec import Spec

COLUMNS = (
    *shared("study dataset arm reference stratum outcome scale block replicate"),
    *floats("arm_value reference_value difference", OF_SCALE),
)
SCHEMA = schema_of(COLUMNS, "one eligible pair of replicates in one contrast, dataset, outcome and stratum")


def differences_table(grid: ConfirmGrid) -> pa.Table:
    """Every eligible pair of every contrast, on the outcomes that claims name, on their other scales, and on accuracy.

    ``difference`` is arm minus reference, exactly what the effects table takes the mean of.
    """
    parts: list[pa.Table] = [SCHEMA.empty_table()]
    for reading in readings(grid, grid.spec.all_contrasts(), main_outcomes(grid.spec, grid.confirm)):
        a, b = pair_up(reading)
        used = np.flatnonzero(np.isfinite(a))
        values = {"arm_value": a[used], "reference_value": b[used], "difference": subtract(a[used], b[used])}
        columns: dict[str, Any] = {name: pa.repeat(text, len(used)) for name, text in reading.head.items()}
        columns |= {"block": grid.pairs[used, 0], "replicate": grid.pairs[used, 1], **values}
        parts.append(pa.Table.from_arrays([pa.array(columns[name]) for name in SCHEMA.names], schema=SCHEMA))
    return pa.concat_tables(parts).combine_chunks()


def main_outcomes(spec: Spec, trials: pa.Table) -> list[ReadOutcome]:
    """What a study is mainly read on: outcomes that claims name, the same on their other scales, and test accuracy."""
    claimed = {outcome.name for claim in spec.claims.values() for outcome in claim.outcomes}
    wanted = claimed | {other for name in claimed for other in other_scales(name)} | {METRIC_OUTCOMES[0]}
    return [outcome for outcome in outcomes_of(spec, trials) if outcome.name in wanted]
