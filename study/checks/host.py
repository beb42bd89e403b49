"""What one host of a cluster says of itself when the doctor asks: versions, devices, what it sees of storage and data."""

import hashlib
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from study.errors import UserError

# A host with another release of one of these gives other numbers, or none.
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "ray")


class Host(TypedDict):
    """``versions`` of Python and packages, and a digest of this package's source; ``gpus`` that torch sees.

    ``storage``: whether the mark that the driver left there is seen, or why not; ``missing`` datasets, with what to do.
    ``clock`` in seconds since 1970.
    """

    versions: dict[str, str]
    gpus: int
    storage: str
    missing: dict[str, str]
    clock: float


def describe(storage: str, mark: str, datasets: Sequence[str]) -> Host:
    """This host. ``mark`` is the name of a file that the driver has made in ``storage``."""
    import torch

    from study.data import load_dataset, offline

    missing = {}
    for name in datasets:
        try:
            with offline():
                load_dataset(name)
        except UserError as error:
            missing[name] = str(error)
    versions = {"python": ".".join(platform.python_version_tuple()[:2]), "fmm-study": source_digest()}
    return Host(
        versions=versions | {name: metadata.version(name) for name in PACKAGES},
        gpus=torch.cuda.device_count(),
        storage=_seen(Path(storage), mark),
        missing=missing,
        clock=time.time(),
    )


def source_digest() -> str:
    """16 hex digits of this package's source, so that hosts with other code are found."""
    digest = hashlib.blake2b(digest_size=8)
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _seen(storage: Path, mark: str) -> str:
    """Empty when the driver's mark is here and another can be left beside it."""
    if not (storage / mark).exists():
        return "is another folder there" if storage.exists() else "is not there"
    own = storage / f"{mark}.{platform.node()}"
    try:
        own.write_text("")
        own.unlink()
    except OSError as error:
        return f"cannot be written there: {error.strerror}"
    return ""
