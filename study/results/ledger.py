"""The ledger, the append-only truth of a study: one line per record, each with a checksum, each on disk before the next.

The driver alone writes it (``Workspace.locked``). A line that a crash cut short is dropped and counted when the ledger is
opened again; a damaged line elsewhere is skipped and counted, never guessed at. Lines go into numbered segments, so that
finished ones can be mirrored to storage that can neither append nor fsync.
"""

import contextlib
import gc
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, cast

from study.errors import StorageError
from study.schema import MeasureRecord, Record, ReplicateRecord

SEGMENT_RECORDS = 4096


@dataclass
class Contents:
    """What a ledger holds: the first record under each key, in order of writing, and how many lines were unreadable."""

    replicates: dict[str, ReplicateRecord] = field(default_factory=dict)
    measures: dict[str, MeasureRecord] = field(default_factory=dict)
    num_damaged: int = 0

    @property
    def num_confirmed(self) -> int:
        """Confirmed replicates held, on which claims rest."""
        return sum(record["phase"] == "confirm" for record in self.replicates.values())

    def lacks(self, record: Record) -> bool:
        """Whether ``record`` would be new here. A failed outcome gives way to a later one."""
        if record["kind"] == "replicate":
            held = self.replicates.get(record["trial_key"])
            return held is None or held["state"] == "failed"
        measured = self.measures.get(record["measure_key"])
        return measured is None or bool(measured["error"])

    def add(self, record: Record) -> bool:
        """Take a record in; ``False`` if its key is already held."""
        if not self.lacks(record):
            return False
        if record["kind"] == "replicate":
            # to the end: the order is that of writing
            self.replicates.pop(record["trial_key"], None)
            self.replicates[record["trial_key"]] = record
        else:
            self.measures[record["measure_key"]] = record
        return True


def encode(record: Record) -> bytes:
    """One line: eight hex digits of CRC-32, a space, the JSON record."""
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(line: bytes) -> Record | None:
    """The record of a line without its newline, or ``None`` if the line is damaged."""
    try:
        return cast(Record, json.loads(_body(line)))
    except ValueError:
        return None


def decode_all(lines: list[bytes]) -> list[Record | None]:
    """``decode`` of every line, parsed together, which keeps one copy of each key's name and takes half the time."""
    try:
        records = json.loads(b"[" + b",".join(map(_body, lines)) + b"]")
    except ValueError:
        records = []
    # a line with a good checksum that is not one JSON value: never written by this module
    return records if len(records) == len(lines) else [decode(line) for line in lines]


def _body(line: bytes) -> bytes:
    """The JSON text of a line; ``null`` where the checksum is another."""
    checksum, _, body = line.partition(b" ")
    try:
        return body if int(checksum, 16) == zlib.crc32(body) else b"null"
    except ValueError:
        return b"null"


def segments(folder: Path) -> list[Path]:
    """Segment files in order of writing."""
    return sorted(folder.glob("*.jsonl"))


def read_ledger(folder: Path) -> Contents:
    """Read all segments. A missing folder is an empty ledger."""
    contents, texts = Contents(), dict[str, str]()
    with _no_collection():
        for segment in segments(folder):
            for record in decode_all(segment.read_bytes().splitlines()):
                if record is None:
                    contents.num_damaged += 1
                else:
                    _share(cast(dict[str, Any], record), texts)
                    contents.add(record)
    return contents


def _share(record: dict[str, Any], texts: dict[str, str]) -> None:
    """Let equal texts of many records be one object: a fifth of the memory."""
    for part in (record, record.get("config", {})):
        for name, value in part.items():
            if type(value) is str:
                part[name] = texts.setdefault(value, value)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector: records hold no cycles, and the search for some takes as long as reading them."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


class Ledger:
    """The ledger opened for appending; use as a context manager. Opening repairs a torn tail (counted in ``num_damaged``).

    Raises ``StorageError`` where it cannot be written; it then holds what it held before.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        existing = segments(folder)
        self._index = int(existing[-1].stem) if existing else 1
        # cut before reading: a last record that lacks nothing but its newline must not count as held
        torn = bool(existing) and _cut_torn_tail(existing[-1])
        self.contents = read_ledger(folder)
        self.contents.num_damaged += torn
        self._file = self._open()
        self._lines = existing[-1].read_bytes().count(b"\n") if existing else 0

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, record: Record) -> bool:
        """Write a record through to disk; ``False``, and nothing written, if its key is already held.

        Raises ``StorageError`` where the disk does not take it: then no part of it stays.
        """
        if not self.contents.lacks(record):
            return False
        if self._lines >= SEGMENT_RECORDS:
            self._file.close()
            self._index, self._lines = self._index + 1, 0
            self._file = self._open()
        before, rest = self._file.seek(0, os.SEEK_END), memoryview(encode(record))
        try:
            while rest:
                # a disk that is nearly full takes a part, and raises for the rest
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(before)
            raise StorageError(self._path(), error) from error
        self._lines += 1
        return self.contents.add(record)

    def _path(self) -> Path:
        return self.folder / f"{self._index:06d}.jsonl"

    def _open(self) -> FileIO:
        try:
            # unbuffered: a buffer might be written later, when the disk is no longer full
            return self._path().open("ab", buffering=0)
        except OSError as error:
            raise StorageError(self._path(), error) from error


def _cut_torn_tail(segment: Path) -> bool:
    """Drop a last line without a newline, which a crash in mid-write leaves; whether there was one."""
    data = segment.read_bytes()
    torn = bool(data) and not data.endswith(b"\n")
    if torn:
        with segment.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
            os.fsync(file.fileno())
    return torn
