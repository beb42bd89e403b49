"""The learning curves: one row per replicate, metric and epoch."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.trials.records import current_records
from search_spaces.spec import Spec
from study.results.ledger import Contents

_LABEL = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("trial_key", _LABEL),
        ("cell", _LABEL),
        ("phase", _LABEL),
        pa.field("block", pa.int64(), metadata={"unit": "identifier"}),
        ("metric", _LABEL),
        pa.field("epoch", pa.int64(), metadata={"unit": "epochs"}),
        pa.field("value", pa.float64(), metadata={"unit": "of the row's outcome"}),
    ],
    metadata={"row": "one replicate, metric and epoch"},
)


def curves_table(spec: Spec, contents: Contents) -> pa.Table:
    """Training curves in long form, rows ordered as ``trials_table``; ``epoch`` counts from 1, NaN becomes null."""
    records = current_records(spec, contents)
    series = [(i, metric, values) for i, r in enumerate(records) for metric, values in sorted(r["curves"].items())]
    lengths = np.array([len(values) for _, _, values in series], dtype=np.int64)
    owner = np.repeat(np.array([i for i, _, _ in series], dtype=np.int64), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    values = np.concatenate([np.zeros(0), *(np.asarray(values, dtype=np.float64) for _, _, values in series)])

    def label(names: list[str], positions: np.ndarray) -> pa.Array:
        known = pa.array(names, pa.string()).dictionary_encode()
        return pc.take(known, pa.array(positions, pa.int64())).cast(_LABEL)

    columns = [
        *(label([record[name] for record in records], owner) for name in ("trial_key", "cell", "phase")),
        pa.array(np.array([record["block"] for record in records], dtype=np.int64)[owner], pa.int64()),
        label([metric for _, metric, _ in series], np.repeat(np.arange(len(series)), lengths)),
        pa.array(np.arange(len(owner)) - starts + 1, pa.int64()),
        pa.array(values, pa.float64(), from_pandas=True),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
