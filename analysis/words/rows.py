"""Rows of a table as mappings of column to value: grouped, told apart, chosen."""

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]
Rows = list[Row]


def grouped(rows: Iterable[Row], *names: str) -> dict[Any, Rows]:
    """Value of a column (of several: a tuple) -> its rows; groups and rows in order of appearance."""
    groups: dict[Any, Rows] = {}
    for row in rows:
        groups.setdefault(_key(row, names), []).append(row)
    return groups


def distinct(rows: Iterable[Row], *names: str) -> list[Any]:
    """The different values of a column (of several: tuples), in order of appearance."""
    return list(dict.fromkeys(_key(row, names) for row in rows))


def where(rows: Iterable[Row], **values: Any) -> Rows:
    """The rows that hold ``values``."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def _key(row: Row, names: tuple[str, ...]) -> Any:
    return row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
