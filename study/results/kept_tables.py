"""https://parquet.apache.org/docs/file-format/: tables that statistics keep beside their estimates, one file a table.

``measurements/<trial_key>/<measure_key>.<table>.parquet`` under the study's folder, written by workers, each whole, before
their records are handed over: a measurement that the ledger holds has its tables.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic import replacing
from study.results.files import kept_path

SAMPLES = "samples"


def write_kept(root: Path, trial_key: str, measure_key: str, tables: Mapping[str, pa.Table]) -> list[str]:
    """Write a measurement's tables; their names. Raises ``StorageError`` where they cannot be written."""
    for name, table in tables.items():
        with replacing(kept_path(root, trial_key, measure_key, name)) as partial:
            pq.write_table(table, partial, compression="zstd")
    return list(tables)
