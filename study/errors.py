"""Errors that a user can mend: one line, no traceback, exit status 2."""

import difflib
import os
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

# What torch, cuBLAS, cuSOLVER, cuDNN and Metal say where they do not raise torch's own class.
_OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED", "not enough memory")
# Control characters but tab and newline.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class UserError(ValueError):
    """What the user asked for cannot be done; the message is one line that says what would be right."""


class StorageError(UserError):
    """A file cannot be written, on a full disk, say: no replicate's fault. ``errno`` and ``reason`` are the system's."""

    def __init__(self, path: Path | str, error: OSError) -> None:
        self.errno = error.errno
        self.reason = os.strerror(error.errno) if error.errno else str(error)
        super().__init__(
            f"{path} cannot be written: {self.reason}; when that is mended the same command continues; nothing is lost"
        )


def printable(text: str) -> str:
    """``text`` with control characters written as ``\\x1b``: a name or a message must not steer a terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


# of a registry's names, a message lists so many
_MOST_NAMES = 24


def nearest(name: object, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the known name nearest to ``name``, or the known names where none is near."""
    names = sorted(known)
    matches = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if matches:
        return f" (did you mean {matches[0]!r}?)"
    shown = ", ".join(names[:_MOST_NAMES])
    return f" (known: {shown}{f', and {len(names) - _MOST_NAMES} more' if len(names) > _MOST_NAMES else ''})"


def reason(error: BaseException) -> str:
    """``TypeError: what it says (my_nets.py line 12)``, of what a user's code raises; the line is theirs, not a library's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    ours = ("site-packages", str(Path(__file__).parent))
    theirs = [frame for frame in frames if not any(part in frame.filename for part in ours)] or frames
    where = f" ({Path(theirs[-1].filename).name} line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{where}"


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a device or the host has no memory left."""
    # by its name: this module is imported where torch is not
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
