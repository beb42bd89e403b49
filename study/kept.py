"""https://parquet.apache.org/docs/file-format/: tables that statistics keep beside their estimates, one file a table.

``measurements/<trial_key>/<measure_key>.<table>.parquet`` under the study's folder, written by workers by atomic rename
before their records are handed over: a measurement that the ledger holds has its tables.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SAMPLES = "samples"
FOLDER = "measurements"


def kept_path(root: Path, trial_key: str, measure_key: str, table: str) -> Path:
    """Where a measurement's table lies, in the study's folder ``root``."""
    return root / FOLDER / trial_key / f"{measure_key}.{table}.parquet"


def write_kept(root: Path, trial_key: str, measure_key: str, tables: Mapping[str, pa.Table]) -> list[str]:
    """Write a measurement's tables; their names. Raises ``OSError`` where the folder cannot be written."""
    for name, table in tables.items():
        path = kept_path(root, trial_key, measure_key, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # the process number: a worker that outlived its driver may still be writing the same table
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
    return list(tables)
