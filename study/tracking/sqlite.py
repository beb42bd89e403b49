"""https://www.sqlite.org/atomiccommit.html: MLflow's database file: there with its whole schema, or not at all."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

_SCHEME = "sqlite:///"


def is_missing(uri: str) -> bool:
    """Whether ``uri`` names a SQLite file that is not there; it would be made by asking for it."""
    return uri.startswith(_SCHEME) and not Path(uri.removeprefix(_SCHEME)).exists()


def prepare(uri: str, make_schema: Callable[[str], None]) -> None:
    """Make the database of a SQLite URI where there is none. Raises what ``make_schema`` raises, and ``OSError``.

    MLflow makes its schema in many steps, and one broken off among them (a kill, a full disk) can be neither used nor
    finished: so it is made beside its place. A write-ahead log, which stays with the file, makes a third of the waiting, and
    readers block no writer.
    """
    if not uri.startswith(_SCHEME):
        return
    path = Path(uri.removeprefix(_SCHEME))
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_missing(uri):
        # a new name each time, for MLflow keeps connections by name
        with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            partial = Path(folder).resolve() / path.name
            make_schema(f"{_SCHEME}{partial}")
            # of two drivers that begin at once, the first one's stays
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(partial)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
