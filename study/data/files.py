"""The folder of datasets, and downloads into it.

The folder is ``$FMM_STUDY_DATA``, or ``data/`` in the working directory; inside it the layout is torchvision's. On a
cluster set the variable where ``ray start`` runs. ``FMM_STUDY_OFFLINE=1`` forbids every download.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from study.errors import UserError
from study.registry import DATASETS

ROOT_VARIABLE = "FMM_STUDY_DATA"
OFFLINE_VARIABLE = "FMM_STUDY_OFFLINE"
LONGEST = 200
_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


def data_root() -> Path:
    """The folder of all datasets, absolute; it need not exist. Raises ``UserError`` for the home of an unknown user."""
    given = os.environ.get(ROOT_VARIABLE) or "data"
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:
        raise UserError(f"{ROOT_VARIABLE} = {given!r}: there is no such user; expected a folder") from None


@contextmanager
def telling(say: Callable[[str], None]) -> Iterator[None]:
    """Inside, ``say`` is told how far a loader is that takes long."""
    token = _listener.set(say)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(line: str) -> None:
    """Tell whoever listens (``telling``)."""
    if say := _listener.get():
        say(line)


def is_own(name: str) -> bool:
    """Whether a dataset is the user's own, and not one that was published and is the same everywhere."""
    return name not in DATASETS or "num_pool" not in DATASETS[name].traits


@contextmanager
def offline() -> Iterator[None]:
    """Inside, no dataset is downloaded: an absent one raises ``UserError`` at once (for checks and for tests)."""
    before = os.environ.get(OFFLINE_VARIABLE)
    os.environ[OFFLINE_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[OFFLINE_VARIABLE]
        else:
            os.environ[OFFLINE_VARIABLE] = before


def ensure(name: str, files: Sequence[str], origin: str, download: Callable[[Path], object] | None) -> Path:
    """The data root, with all of ``files`` (paths below it) there; they are downloaded if they are not.

    ``download`` fills an empty folder; each of ``files`` is moved from there as a whole, so no worker sees a part of one.
    Workers that share a data root wait for each other. Raises ``UserError`` naming files, folder and ``origin``.
    """
    root = data_root()
    if not _missing(root, files):
        return root
    failure = "no download is known"
    if download is not None and os.environ.get(OFFLINE_VARIABLE) in (None, "", "0"):
        failure = _attempt(name, root, files, download)
    elif download is not None:
        failure = f"{OFFLINE_VARIABLE} forbids the download"
    if missing := _missing(root, files):
        raise UserError(
            f"dataset {name} is not here ({failure}): put {_listed(missing)} into {root} (or set {ROOT_VARIABLE} to the "
            f"folder that has them); they come from {origin}"
        )
    return root


def damaged(name: str, where: Path, error: Exception) -> UserError:
    """The error for files that are there and cannot be read."""
    advice = "mend it or remove it" if is_own(name) else "remove its files there and fetch them again"
    return UserError(f"dataset {name} in {where} cannot be read ({_one_line(error)}): {advice}")


def _attempt(name: str, root: Path, files: Sequence[str], download: Callable[[Path], object]) -> str:
    """Download under a lock; why it failed, in one line."""
    from filelock import FileLock  # a dependency of torch

    partial = root / f".{name}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            missing = _missing(root, files)
            if not missing:  # fetched by another worker meanwhile
                return ""
            shutil.rmtree(partial, ignore_errors=True)  # of a download that was killed
            try:
                partial.mkdir()
                download(partial)
                for file in missing:
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    (partial / file).rename(root / file)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except Exception as error:  # noqa: BLE001  torchvision passes on whatever network, archive or disk raise
        return f"the download failed: {_one_line(error)}"
    return ""


def _one_line(error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{reason[:LONGEST]}{'...' if len(reason) > LONGEST else ''}"


def _missing(root: Path, files: Sequence[str]) -> list[str]:
    return [file for file in files if not (root / file).exists()]


def _listed(files: Sequence[str]) -> str:
    """Files by their folder: ``a/{b, c}, d``."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        folders.setdefault(folder, []).append(name)
    parts = []
    for folder, names in folders.items():
        inside = ", ".join(names)
        parts.append(inside if not folder else f"{folder}/{inside}" if len(names) == 1 else f"{folder}/{{{inside}}}")
    return ", ".join(parts)
