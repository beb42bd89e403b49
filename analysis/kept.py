"""https://parquet.apache.org/docs/file-format/: the tables that statistics kept of each network, read from the study's folder."""

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
    holders = {key for key, found in measures.items() if table in found.get(statistic, {}).get("kept", [])}
    for row in inputs.trials.to_pylist() if holders else []:
        if row["trial_key"] in holders and (row["phase"], row["state"]) == ("confirm", "completed"):
            key = measures[row["trial_key"]][statistic]["measure_key"]
            path = kept_path(inputs.folder, row["trial_key"], key, table)
            if path.exists():
                yield row, pq.read_table(path)
