"""SQLite stores of MLflow: their addresses, making one whole, reading one that cannot be written, files that follow a folder.

In an address ``%``, ``?`` and ``#`` of a path are quoted, as SQLAlchemy expects it.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

from study.errors import UserError

PREFIX = "sqlite:///"
# where the files of a study lie beside its store, in a folder of its name
ARTIFACTS = "mlartifacts"
_UNQUOTED = "".join(chr(code) for code in range(32, 127) if chr(code) not in "%?#")
# https://www.sqlite.org/fileformat.html
_HEADER = b"SQLite format 3\0"
# copies that are read in place of stores that cannot be written; they go when the process ends
_copies: dict[Path, tempfile.TemporaryDirectory[str]] = {}


def sqlite_uri(path: Path) -> str:
    """The address of a database file."""
    return PREFIX + quote(str(path), safe=_UNQUOTED)


def sqlite_path(uri: str) -> Path | None:
    """The file that an address names; ``None`` for a store that is no SQLite file."""
    return Path(unquote(uri.removeprefix(PREFIX).partition("?")[0])) if uri.startswith(PREFIX) else None


def is_missing(uri: str) -> bool:
    """Whether ``uri`` names a SQLite file that does not exist or is empty; MLflow would make it when asked."""
    path = sqlite_path(uri)
    return path is not None and (not path.exists() or _is_empty(path))


def _is_empty(path: Path) -> bool:
    """Whether it is a file of no bytes, as a power cut or another program leaves: SQLite takes it for an empty database."""
    return path.is_file() and not path.stat().st_size


def prepare(uri: str, make_schema: Callable[[str], None]) -> None:
    """Make the database of a SQLite URI if there is none. Raises what ``make_schema`` raises, and ``OSError``.

    MLflow makes its schema in many steps. One broken off by a kill or a full disk can be neither used nor finished, so it is
    made beside its place. A write-ahead log, which stays with the file, cuts waiting to a third, and readers block no writer.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    check_database(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_missing(uri):
        # a new name each time, for MLflow keeps connections by name
        with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            partial = Path(folder).resolve() / path.name
            make_schema(sqlite_uri(partial))
            if path.exists() and _is_empty(path):
                path.unlink()
            # of two drivers that begin at once, the first one's stays
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(partial)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")


def readable(uri: str) -> str:
    """``uri``, or the address of a copy where its file cannot be written: MLflow, and a write-ahead log, ask for that.

    Raises ``OSError``, and ``UserError`` for a file that is no database.
    """
    path = sqlite_path(uri)
    check_database(path)
    if path is None or is_missing(uri) or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return uri
    if path not in _copies:
        _copies[path] = tempfile.TemporaryDirectory(prefix="fmm-study-", ignore_cleanup_errors=True)
        for name in (path.name, f"{path.name}-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(name), Path(_copies[path].name) / name)
    return sqlite_uri(Path(_copies[path].name) / path.name)


def check_database(path: Path | None) -> None:
    """Raise ``UserError`` for a file that is no database: MLflow would try for a minute to read it."""
    if path is not None and path.exists() and not _is_empty(path):
        regular = path.is_file()
        with path.open("rb") if regular else contextlib.nullcontext() as file:
            if file is None or file.read(len(_HEADER)) != _HEADER:
                raise UserError(f"{path}: it is no SQLite database")


def without_strays(uri: str) -> None:
    """Remove the empty folders that MLflow makes of a quoted address, because it takes it for a path."""
    raw, path = Path(uri.removeprefix(PREFIX)), sqlite_path(uri)
    if path is not None and raw != path:
        for folder in raw.parents:
            if "%" in str(folder):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def follow(uri: str, experiment_id: str, old: str, artifacts: Path) -> bool:
    """Let the files of an experiment at ``old`` be looked for in ``artifacts``, if its folder was moved or copied there.

    They follow where ``old`` is gone, and where the store lies beside ``artifacts``. Whether they did. Raises
    ``sqlite3.Error``. MLflow itself has no way to do this.
    """
    path, new = sqlite_path(uri), artifacts.resolve().as_uri()
    if path is None or old == new or not old.startswith(("file:", "/")):
        return False
    beside = path.resolve().parent == artifacts.resolve().parent.parent
    if not beside and local_folder(old).exists():
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, experiment_id))
        database.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (new, len(old) + 1, experiment_id, len(old) + 1, f"{old}/"),
        )
    return True


def local_folder(uri: str) -> Path:
    """The folder of a ``file:`` address."""
    return Path(unquote(uri.removeprefix("file://")))
