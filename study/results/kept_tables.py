"""Tables that statistics keep beside their estimates: Parquet, a file per table.

Workers write them, each file whole, before they hand over the record: a measurement in the ledger has its tables, and holds
the checksum of each file. (Parquet's own are of pages alone, and not looked at unless asked for.)
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic import checksum_of, replacing
from study.errors import UserError
from study.results.files import kept_path

SAMPLES = "samples"


def write_kept(root: Path, trial_key: str, measure_key: str, tables: Mapping[str, pa.Table]) -> list[str]:
    """Write a measurement's tables; their names. Raises ``StorageError`` where they cannot be written."""
    for name, table in tables.items():
        with replacing(kept_path(root, trial_key, measure_key, name)) as partial:
            pq.write_table(table, partial, compression="zstd")
    return list(tables)


def read_kept(path: Path, checksum: str = "") -> pa.Table:
    """A kept table. ``checksum``: what its record holds, empty for a record of an older version.

    Raises ``UserError`` where it is damaged or another file, ``FileNotFoundError`` where there is none.
    """
    try:
        if checksum and checksum_of(path) != checksum:
            raise ValueError("its checksum is wrong")
        return pq.read_table(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        advice = "put it back from a copy, or remove it to do without"
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}): {advice}") from None
