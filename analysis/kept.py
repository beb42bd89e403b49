"""https://parquet.apache.org/docs/file-format/: the tables that statistics keep, read from a study's folder."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.records import current_measures
from analysis.tables import Inputs
from study.kept import kept_path


def kept_tables(inputs: Inputs, statistic: str, table: str) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Of each completed, confirmed network, in the order of the trials table: its row, and what ``statistic`` kept of it.

    Nothing where a network has no such table, or where only an MLflow server is read (``inputs.folder`` is ``None``).
    """
    if inputs.folder is None:
        return
    measures = current_measures(inputs.contents)
    keys = {
        trial_key: found[statistic]["measure_key"]
        for trial_key, found in measures.items()
        if statistic in found and table in found[statistic].get("kept", [])
    }
    for row in inputs.trials.to_pylist() if keys else []:
        if row["trial_key"] in keys and (row["phase"], row["state"]) == ("confirm", "completed"):
            path = kept_path(inputs.folder, row["trial_key"], keys[row["trial_key"]], table)
            if path.exists():
                yield row, pq.read_table(path)
