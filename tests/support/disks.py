"""Disks that run full: a small filesystem of its own, where the system lets tests mount one."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A filesystem in memory at ``folder``; ``fill`` leaves so many bytes of it free, ``clear`` makes room again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, free: int) -> None:
        with self._ballast.open("wb") as file:
            while (room := self._room() - free) > 0:
                # a study that writes meanwhile may take what was counted on
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, room)
                    return

    def _room(self) -> int:
        held = os.statvfs(self.folder)
        return held.f_bavail * held.f_frsize

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)


def mounted(folder: Path, megabytes: int) -> Iterator[Disk]:
    """For a fixture: skips the test where nothing can be mounted (needs root)."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no filesystem can be mounted here: needs root")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
