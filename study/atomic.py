"""Files that are whole or absent through kills, power cuts and full disks, and whose damage is seen when they are read.

Source: https://www.usenix.org/conference/osdi14/technical-sessions/presentation/pillai
"""

import contextlib
import glob
import json
import math
import os
import socket
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study.errors import StorageError, UserError
from study.schema import departure

# Of the JSON files of a study: a version that changes what they say in a way that this one would misread counts on.
FORMAT = 2
# No file of a study that is read whole is larger.
MOST_BYTES = 2**28
# What is added to a JSON file: ``checksum`` is the CRC-32 of all else as compact JSON.
_SEAL = frozenset(("format", "checksum"))


@contextlib.contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to; at the end that file is put on disk and takes the place of ``path``.

    ``path`` then holds the old file or the new one, never a part; what a killed writer left beside it is removed. Without
    ``lasting``, for what can be made again, a power cut may leave an empty file. Raises ``StorageError`` where it cannot be
    written, also where a library hides the system's error behind its own (torch, on a full disk).
    """
    # named by host and process: a worker that outlived its driver may still be writing the same file, also elsewhere
    beside = f".{path.name}.{socket.gethostname()}."
    partial = path.with_name(f"{beside}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(beside)}*"):
            if not is_alive(left.name.removeprefix(beside)):
                left.unlink(missing_ok=True)
        yield partial
        if lasting:
            with partial.open("rb") as file:
                # or a power cut would leave the new name on an empty file
                os.fsync(file.fileno())
        partial.replace(path)
    except Exception as error:
        cause = system_error(error)
        if cause is None:
            raise
        raise StorageError(path, cause) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def is_alive(number: str | int) -> bool:
    """Whether a process of this host has the id ``number``."""
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Put ``text`` at ``path``, whole. Raises ``StorageError``."""
    with replacing(path) as partial:
        partial.write_text(text)


def write_json(path: Path, value: dict[str, Any] | list[Any], *, finite: bool = True) -> None:
    """Put ``value`` at ``path`` as JSON, whole, with a seal by which ``read_json`` sees damage.

    Raises ``StorageError``; ``UserError`` if ``finite`` for a number that is not, which could not be read again.
    """
    if finite:
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise UserError(f"{path}: a number to be written there is not finite") from None
    seal: dict[str, Any] = {"format": FORMAT}
    seal["checksum"] = _checksum(_sealed(value, seal))
    write_text(path, json.dumps(_sealed(value, seal), indent=2) + "\n")


def read_json(
    path: Path, kind: Any = dict[str, Any] | list[Any], *, needs_seal: bool = False, finite: bool = True
) -> Any:
    """What a JSON file of a study holds, without its seal; ``None`` where there is none.

    Raises ``UserError``, one line that names the file, for whatever else is there: what is no regular file or cannot be read,
    no JSON, another value than ``kind`` (``study.schema.departure``), a wrong checksum, a format of a newer version; without
    ``needs_seal`` a file may be one of an older version, which has none. NaN and infinity are refused if ``finite``.
    """
    try:
        data = read_regular(path)
        if data is None:
            return None
        value, seal = _unsealed(_parse(data, finite))
        if needs_seal and not seal:
            raise ValueError("it has no checksum: an older version wrote it")
        if type(written := seal.get("format")) is int and written > FORMAT:
            raise UserError(
                f"{path} was written by a newer version of fmm-study (format {written}, this one reads up to {FORMAT}): "
                "install that one"
            )
        if seal and seal.pop("checksum", None) != _checksum(_sealed(value, seal)):
            raise ValueError("its checksum is wrong")
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:200] if isinstance(error, ValueError) else "it is nested too deeply"
        raise UserError(f"{path} is damaged ({why}): put it back from a copy, or see docs/faults.md") from None
    if told := departure(value, kind):
        raise UserError(f"{path}{told}; put it back from a copy, or see docs/faults.md")
    return value


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes | None:
    """The bytes of a file; ``None`` where there is none. Raises ``UserError`` for what cannot be read or has over ``most``."""
    try:
        # a FIFO without a writer would be waited for
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path} is no regular file; put it back from a copy, or see docs/faults.md")
            if status.st_size > most:
                raise UserError(f"{path} has {status.st_size} bytes, at most {most} are expected")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def checksum_of(path: Path) -> str:
    """CRC-32 of a file as 8 hex digits. Raises ``OSError``."""
    value = 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            value = zlib.crc32(part, value)
    return f"{value:08x}"


def _parse(data: bytes, finite: bool) -> Any:
    """``json.loads`` that refuses what it lets through. Raises ``ValueError`` and ``RecursionError``."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        held = dict(pairs)
        if len(held) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"key {twice[:80]!r} stands twice")
        return held

    def number(text: str) -> float:
        value = float(text)
        if finite and not math.isfinite(value):
            raise ValueError(f"{text[:80]} is no finite number")
        return value

    value = json.loads(data.decode(), object_pairs_hook=unique, parse_float=number, parse_constant=number)
    # half of a surrogate pair can be neither printed nor written again
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _sealed(value: Any, seal: dict[str, Any]) -> Any:
    return [*value, seal] if isinstance(value, list) else {**value, **seal}


def _unsealed(value: Any) -> tuple[Any, dict[str, Any]]:
    """A value without its seal, and the seal, empty if there is none."""
    if isinstance(value, list):
        sealed = bool(value) and isinstance(value[-1], dict) and bool(value[-1].keys() & _SEAL)
        return (value[:-1], dict(value[-1])) if sealed else (value, {})
    if isinstance(value, dict) and value.keys() & _SEAL:
        seal = {name: value[name] for name in _SEAL if name in value}
        return {name: item for name, item in value.items() if name not in _SEAL}, seal
    return value, {}


def _checksum(value: Any) -> str:
    return f"{zlib.crc32(json.dumps(value, separators=(',', ':')).encode()):08x}"


def check_archive(path: Path) -> None:
    """Raise ``ValueError`` if a file of ``torch.save`` is no whole archive, or a checksum in it is wrong.

    ``torch.load`` ignores the checksums: from a file with a flipped bit it gives other weights. Cost: the file is read once.
    Raises ``OSError`` where it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # a zip reader raises many things for damaged headers
        raise ValueError(f"no whole archive: {error}") from error
    if part:
        raise ValueError(f"the checksum of {part} is wrong")


def system_error(error: BaseException) -> OSError | None:
    """The system's error that ``error`` is or was caused by, if any."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found
