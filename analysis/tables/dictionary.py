"""The data dictionary: what stands in each column of each table."""

from analysis.inputs import Inputs
from analysis.tables.build import build_table, table_names
from analysis.words.columns import texts
from analysis.words.rows import Rows
from study.registry import TABLES

_NAME = "dictionary"
# of a field's metadata, as Parquet files hold them too
_TOLD = {"unit": "unit", "meaning": "description", "statistic": "statistic"}
_COLUMNS = texts(
    {
        "table": "the table's name: its files are NAME.parquet, NAME.csv and so on",
        "column": "the column's name",
        "type": "the type of its values, as Arrow calls it",
        "unit": "the unit of a number",
        "meaning": "what stands in the column",
        "statistic": "the statistic that it comes from (fmm-study levels statistic); empty for what none measures",
    }
)


@TABLES.register(
    _NAME,
    formula="one row a column of a table: type, unit, meaning, the statistic it comes from",
    source="",
    columns=_COLUMNS,
    formats=("parquet", "csv"),
    row="one column of one table",
)
def dictionary_rows(inputs: Inputs) -> Rows:
    """Every column of every other table, in their order, then of this one."""
    schemas = {name: build_table(inputs, name).schema for name in table_names() if name != _NAME}
    rows: Rows = [
        {"table": name, "column": field.name, "type": str(field.type)}
        | {column: _metadata(field.metadata, key) for column, key in _TOLD.items()}
        for name, schema in schemas.items()
        for field in schema
    ]
    own = [{"table": _NAME, "column": c.name, "type": str(c.type), "meaning": c.meaning} for c in _COLUMNS]
    return rows + [dict.fromkeys(_TOLD, "") | row for row in own]


def _metadata(metadata: dict[bytes, bytes] | None, key: str) -> str:
    return (metadata or {}).get(key.encode(), b"").decode()
