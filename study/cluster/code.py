"""Driver and workers run the same installed code, and import nothing from the folder that a command is run in.

Ray puts the driver's current folder, and that of its script, first on the search path of every worker. So Ray is started, and
connected to, from a folder that is on it already. A worker then goes back to the driver's folder, where data lie and the files
that plug-ins read, and compares its code with the driver's before it begins.
"""

import contextlib
import functools
import hashlib
import os
import socket
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from study.errors import UserError

PACKAGES = ("analysis", "search_spaces", "study")
# The folder that our packages are imported from.
ROOT = Path(__file__).parents[2]
_LIBRARY = sysconfig.get_path("stdlib")


class Surroundings(TypedDict):
    """What a worker needs before its first task: of which code, in which folder, with which ``plugins``, sought where."""

    root: str
    digest: str
    folder: str
    plugins: list[str]
    sought: list[str]


def surroundings(plugins: Sequence[str]) -> Surroundings:
    """This process's own, for its workers."""
    from study.plugins import sought

    here = str(Path.cwd())
    folders = list({here: None, **sought}) if plugins else []
    return Surroundings(root=str(ROOT), digest=source_digest(), folder=here, plugins=list(plugins), sought=folders)


def away() -> contextlib.AbstractContextManager[None]:
    """For the block, be in the standard library's folder."""
    return contextlib.chdir(_LIBRARY)


def take_up(given: Surroundings) -> None:
    """Enter the driver's folder, compare the code, import the plug-ins. Raises ``UserError``.

    Workers of a cluster that is there already stay in the folder that Ray was started in.
    """
    with contextlib.suppress(OSError):
        if Path.cwd().samefile(_LIBRARY):
            os.chdir(given["folder"])
    if (own := _digest_at_start()) != given["digest"]:
        raise UserError(
            f"workers run other code than this driver: {given['root']} (digest {given['digest']}) here, {ROOT} (digest "
            f"{own}) on {socket.gethostname()}; install the same code on all hosts, change none during a run, begin again"
        )
    # here, because it imports torch, which a connection does not need
    from study.plugins import load_plugins

    load_plugins(given["plugins"], *given["sought"])


def source_digest() -> str:
    """16 hex digits of the source of our packages, by which other code is found."""
    digest = hashlib.blake2b(digest_size=8)
    for name in PACKAGES:
        for path in sorted((ROOT / name).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


# a worker takes up many groups
_digest_at_start = functools.cache(source_digest)
