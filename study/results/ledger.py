"""The ledger, the append-only truth of a study: one line per record, each with a checksum, each on disk before the next.

The driver alone writes it (``Workspace.locked``). A line that a crash cut short is dropped and counted when the ledger is
opened again; a damaged line elsewhere is skipped and counted, never guessed at. Lines go into numbered segments, so that
finished ones can be mirrored to storage that can neither append nor fsync. One whose name ends in ``.xz`` is compressed:
a published study holds such segments, and no driver appends to them.

A driver appends to segments that it has made itself, each by an exclusive creation. So a segment's number is its fencing
number: of two drivers that a broken lock lets in, the one whose next number is taken, or whose lease is gone, stops.
"""

import base64
import contextlib
import gc
import json
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, TypedDict, cast

from study.atomic import read_regular, replacing
from study.config import settings_types
from study.errors import StorageError, UserError
from study.results.files import is_inside
from study.schema import MeasureRecord, Record, ReplicateRecord, departure

SEGMENT_RECORDS = 4096
# the end of a compressed segment's name
COMPRESSED = ".xz"
# a few kilobytes could unpack to any size
_MOST_UNPACKED = 2**31


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
    except (ValueError, RecursionError):
        return None


def record_fault(record: Any) -> str:
    """Why a value with a good checksum is no record of this version; empty if it is one."""
    kind = record.get("kind") if isinstance(record, dict) else None
    if kind not in _KINDS:
        return f": expected one of kind {' or '.join(map(repr, _KINDS))}"
    if told := departure(record, _KINDS[kind]):
        return told
    if kind == "replicate":
        if told := departure(record["config"], _SETTINGS):
            return f".config{told}"
        if not _fits(record.get("test_correct", ""), record.get("num_test", 0)):
            return ".test_correct: expected a bit for each of num_test images, in base64"
    names = [record["trial_key"], *([record["measure_key"], *record.get("kept", [])] if kind == "measure" else [])]
    return next((f": {name[:200]!r} is no key" for name in names if not is_inside(name)), "")


_KINDS = {"replicate": ReplicateRecord, "measure": MeasureRecord}
# settings that this version knows; an own search space may have others
_SETTINGS: Any = TypedDict("_Settings", settings_types(), total=False)  # type: ignore[misc]


def _fits(packed: str, num: int) -> bool:
    try:
        return num >= 0 and len(base64.b64decode(packed, validate=True)) == -(-num // 8)
    except ValueError:
        return False


def decode_all(lines: list[bytes]) -> list[Record | None]:
    """``decode`` of every line, parsed together, which keeps one copy of each key's name and takes half the time."""
    try:
        records = json.loads(b"[" + b",".join(map(_body, lines)) + b"]")
    except (ValueError, RecursionError):
        records = []
    # a line with a good checksum that is not one JSON value: never written by this module
    return records if len(records) == len(lines) else [decode(line) for line in lines]


def _body(line: bytes) -> bytes:
    """The JSON text of a line; ``null`` where the checksum is another."""
    checksum, _, body = line.partition(b" ")
    return body if checksum == b"%08x" % zlib.crc32(body) else b"null"


def segments(folder: Path) -> list[Path]:
    """Segment files in order of writing; none where there is no folder.

    Raises ``UserError`` for a name that is none of a segment's, and where one is missing between others.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    for name in names:
        if not _SEGMENT.fullmatch(name):
            raise UserError(f"{folder / name} is no part of a ledger (000001.jsonl, ...): move it elsewhere")
    for number, name in enumerate(names, start=1):
        found = int(name.partition(".")[0])
        if 0 < found < number:
            raise UserError(f"{folder} holds segment {found} twice, the second time as {name}: move one elsewhere")
        if found != number:
            raise UserError(f"{folder} lacks {_name(number)}: put it back from a copy; results are in it")
    return [folder / name for name in names]


_SEGMENT = re.compile(rf"[0-9]{{6,}}\.jsonl({re.escape(COMPRESSED)})?")


def _name(number: int) -> str:
    return f"{number:06d}.jsonl"


def lines_of(segment: Path) -> list[bytes]:
    """The lines of a segment, without their newlines. Raises ``UserError`` where it cannot be read."""
    data = read_regular(segment, most=sys.maxsize) or b""
    if is_compressed(segment):
        unpacking = lzma.LZMADecompressor()
        try:
            data = unpacking.decompress(data, max_length=_MOST_UNPACKED)
        except lzma.LZMAError as error:
            raise UserError(f"{segment} is damaged ({error}): put it back from a copy") from None
        if not unpacking.eof:
            raise UserError(f"{segment} is cut short, or holds over {_MOST_UNPACKED} bytes: put it back from a copy")
    return data.splitlines()


def add_compressed(folder: Path, records: list[Record]) -> None:
    """Put ``records`` into a compressed segment of their own, after those that are there. Raises ``StorageError``."""
    with replacing(folder / f"{_name(len(segments(folder)) + 1)}{COMPRESSED}") as partial:
        partial.write_bytes(lzma.compress(b"".join(map(encode, records))))


def written_records(segments: Iterable[Path]) -> Iterator[Record]:
    """Every record in the order of writing, also failed ones that gave way to others later; damaged lines are left out."""
    for segment in segments:
        yield from filter(None, decode_all(lines_of(segment)))


def is_compressed(segment: Path) -> bool:
    """Whether it was published: copied from a study elsewhere, whose weights stayed there."""
    return segment.suffix == COMPRESSED


def read_ledger(folder: Path) -> Contents:
    """Read all segments. A missing folder is an empty ledger. Raises ``UserError`` for what this version cannot read."""
    contents, texts = Contents(), dict[str, str]()
    with _no_collection():
        for segment in segments(folder):
            for number, record in enumerate(decode_all(lines_of(segment)), start=1):
                if record is None:
                    contents.num_damaged += 1
                elif fault := record_fault(record):
                    raise UserError(f"{segment} line {number}: record{fault}; was it written by a newer version?")
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

    ``guard`` is called before anything is written and raises where another driver has taken over (``study.results.lease``);
    what is appended then goes into segments of this driver's own. Without it the last segment goes on, if it is not
    compressed. Raises ``UserError`` for a ledger that cannot be read, ``StorageError`` where it cannot be written; it then
    holds what it held before.
    """

    def __init__(self, folder: Path, guard: Callable[[], None] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._guard = folder, guard
        existing = segments(folder)
        # cut before reading: a last record that lacks nothing but its newline must not count as held
        last = existing[-1] if existing and not is_compressed(existing[-1]) else None
        torn = last is not None and _cut_torn_tail(last)
        self.contents = read_ledger(folder)
        self.contents.num_damaged += torn
        self._index, self._lines = len(existing), 0
        self._file: FileIO | None = None
        if guard is None:
            self._index += last is None
            self._file = self._open(new=False)
            self._lines = len(lines_of(last)) if last else 0

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, record: Record) -> bool:
        """Write a record through to disk; ``False``, and nothing written, if its key is already held.

        Raises ``StorageError`` where the disk does not take it: then no part of it stays. Raises what ``guard`` raises.
        """
        if not self.contents.lacks(record):
            return False
        if self._guard is not None:
            self._guard()
        if self._file is None or self._lines >= SEGMENT_RECORDS:
            if self._file is not None:
                self._file.close()
            self._index, self._lines = self._index + 1, 0
            self._file = self._open(new=True)
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
        return self.folder / _name(self._index)

    def _open(self, *, new: bool) -> FileIO:
        """The segment ``self._index``; a ``new`` one must not be there yet."""
        try:
            # unbuffered: a buffer might be written later, when the disk is no longer full
            return FileIO(os.open(self._path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | new * os.O_EXCL, 0o666), "ab")
        except FileExistsError:
            raise UserError(f"another driver writes {self._path()}: this one stops, and has lost nothing") from None
        except OSError as error:
            raise StorageError(self._path(), error) from error


def _cut_torn_tail(segment: Path) -> bool:
    """Drop a last line without a newline, which a crash in mid-write leaves; whether there was one."""
    data = read_regular(segment, most=sys.maxsize) or b""
    torn = bool(data) and not data.endswith(b"\n")
    if torn:
        with segment.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
            os.fsync(file.fileno())
    return torn
