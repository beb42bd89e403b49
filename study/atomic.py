"""Files that are whole or absent through kills, power cuts and full disks, and whose damage is seen when they are read.

Source: https://www.usenix.org/conference/osdi14/technical-sessions/presentation/pillai
"""

import contextlib
import glob
import json
import os
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study.errors import StorageError, UserError


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
            if not _is_alive(left.name.removeprefix(beside)):
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


def _is_alive(number: str) -> bool:
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


def read_json(path: Path) -> Any:
    """What a JSON file holds; ``None`` where there is none. Raises ``UserError`` where it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): put it back from a copy, or see docs/faults.md") from None


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
