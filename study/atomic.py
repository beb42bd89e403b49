"""https://www.usenix.org/conference/osdi14/technical-sessions/presentation/pillai (Pillai et al. 2014): files that are there
whole or not at all, through kills, power cuts and full disks, and that are seen to be whole when they are read.
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
    """Yields a path beside ``path`` to write to; at the end it is put on disk and takes ``path``'s place.

    ``path`` then holds the old file or the new one, never a part; what a killed writer left beside it is removed. Not
    ``lasting`` is what can be made again: after a power cut it may be an empty file. Raises ``StorageError`` where it cannot
    be written, also for what a library raises in a system error's stead (torch, of a full disk).
    """
    # the process: a worker that outlived its driver, maybe on another host, may still be writing the same file
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
    """Whether a process of this host has ``number``; what is no number is nobody's."""
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
    """Raise ``ValueError`` if what ``torch.save`` wrote is no whole archive, or the checksum of a part of it is wrong.

    ``torch.load`` does not look at the checksums: of a file with a flipped bit it gives other weights. Cost: one reading of
    the file. Raises ``OSError`` where it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # of damaged headers a zip reader raises many things
        raise ValueError(f"no whole archive: {error}") from error
    if part:
        raise ValueError(f"the checksum of {part} is wrong")


def system_error(error: BaseException) -> OSError | None:
    """The system's own error in ``error`` or among what led to it."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found
