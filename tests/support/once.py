"""What a session makes once for all its workers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The session's folder of that name, filled by ``make`` for whoever asks first; the others wait. Nobody changes it."""
    base = factory.getbasetemp()
    # each worker of pytest-xdist has a folder of its own in the session's
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        made = folder / "made"
        if not made.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            made.touch()
    return folder
