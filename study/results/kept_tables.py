"""Tables that statistics keep beside their estimates: Parquet, a file per table.

Workers write them, each file whole, before they hand over the record: a measurement in the ledger has its tables.
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
