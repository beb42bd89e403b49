"""The tables that statistics keep, read from a study's folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.inputs import Inputs
from analysis.trials.records import current_measures
from study.errors import UserError
from study.results.files import kept_path


def kept_tables(inputs: Inputs, statistic: str, table: str) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Per completed, confirmed network, in the order of the trials table: its row, and what ``statistic`` kept of it.

    Nothing where a network has no such table, or where only an MLflow server is read (``inputs.folder`` is ``None``). Raises
    ``UserError`` for a damaged one.
    """
    paths = kept_paths(inputs, statistic, table)
    for row in inputs.trials.to_pylist() if paths else []:
        if row["trial_key"] in paths and (row["phase"], row["state"]) == ("confirm", "completed"):
            yield row, read_kept(paths[row["trial_key"]])


def read_kept(path: Path) -> pa.Table:
    """A kept table. Raises ``UserError`` where it is damaged."""
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        advice = "put it back from a copy, or remove it to do without"
        raise UserError(f"{path} cannot be read ({error}): {advice}") from None


def kept_paths(inputs: Inputs, statistic: str, table: str) -> dict[str, Path]:
    """Trial key -> the file of what ``statistic`` kept of it, for those that are there."""
    if inputs.folder is None:
        return {}
    paths = {
        trial_key: kept_path(inputs.folder, trial_key, found[statistic]["measure_key"], table)
        for trial_key, found in current_measures(inputs.contents).items()
        if statistic in found and table in found[statistic].get("kept", [])
    }
    return {trial_key: path for trial_key, path in paths.items() if path.exists()}
