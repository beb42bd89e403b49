"""Tables that statistics keep beside their estimates: ``measurements/<trial_key>/<measure_key>.<table>.parquet``."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from analysis.records import current_measures
from analysis.tables import Inputs


def kept_tables(inputs: Inputs, statistic: str, table: str) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Row of the trials table, and what ``statistic`` kept of that network under ``table``; those without it are left out."""
    if inputs.folder is None:
        return
    measures = current_measures(inputs.contents)
    for row in inputs.trials.to_pylist():
        record = measures.get(row["trial_key"], {}).get(statistic)
        if record is None:
            continue
        path = inputs.folder / "measurements" / row["trial_key"] / f"{record['measure_key']}.{table}.parquet"
        if path.exists():
            yield row, pyarrow.parquet.read_table(path)
