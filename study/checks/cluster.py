"""Whether the hosts of a cluster fit together: the same code and versions, one storage, GPUs that torch sees, the data."""

import hashlib
import platform
import time
import uuid
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from study.cluster.connection import ask_hosts
from study.errors import UserError

# A host with another release of one of these gives other numbers, or none.
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "ray")
# Clocks further apart than this, in seconds, make times in MLflow hard to read; results do not depend on them.
_CLOCKS = 60.0

# What was checked, what was found, what to do (empty when all is well).
Told = tuple[str, str, str]


class Host(TypedDict):
    """What a host says of itself.

    ``versions`` of Python and packages, and a digest of this package's source. ``gpus`` that torch sees. ``storage``: empty
    if the driver's mark is seen there and another can be left, else what is wrong. ``missing`` datasets, with what to do.
    ``clock`` in seconds since 1970.
    """

    versions: dict[str, str]
    gpus: int
    storage: str
    missing: dict[str, str]
    clock: float


def examine_hosts(address: str, storage: Path, datasets: Sequence[str]) -> Iterator[Told]:
    """Ask every host of the cluster at ``address``; ``datasets`` are those that this host holds."""
    storage = storage.resolve()
    storage.mkdir(parents=True, exist_ok=True)
    mark = storage / f".doctor-{uuid.uuid4().hex}"
    mark.write_text("")
    began = time.time()
    try:
        here = describe(str(storage), mark.name, datasets)
        answers = ask_hosts(address, describe, str(storage), mark.name, list(datasets))
    finally:
        mark.unlink(missing_ok=True)
    yield _number(len(answers))
    for host, gpus, answer in answers:
        yield f"host {host}", *_host(here, gpus, answer, storage, (began, time.time()))


def describe(storage: str, mark: str, datasets: Sequence[str]) -> Host:
    """The host that this runs on. ``mark`` is the name of a file that the driver has made in ``storage``."""
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
    """16 hex digits of this package's source, by which hosts with other code are found."""
    digest = hashlib.blake2b(digest_size=8)
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _seen(storage: Path, mark: str) -> str:
    if not (storage / mark).exists():
        return "is another folder there" if storage.exists() else "is not there"
    own = storage / f"{mark}.{platform.node()}"
    try:
        own.write_text("")
        own.unlink()
    except OSError as error:
        return f"cannot be written there: {error.strerror}"
    return ""


def _number(num: int) -> Told:
    if num > 1:
        return "hosts", f"{num}", ""
    advice = "see `ray status` on the head; workers that come once trials wait are no fault, if FMM_STUDY_SLOTS says how many"
    return "hosts", "the head alone: no worker has joined", advice


def _host(
    here: Host, gpus: float, answer: Host | Exception, storage: Path, asked: tuple[float, float]
) -> tuple[str, str]:
    """One host's ``answer`` compared with ``here``, the driver's own; ``asked``: from when to when."""
    if isinstance(answer, Exception):
        told = (str(answer).strip().splitlines() or [type(answer).__name__])[-1]
        return f"gives no answer: {told}", "install fmm-study there, and open the ports between hosts (docs/cluster.md)"
    theirs = answer["versions"]
    differing = ", ".join(
        f"{name} {theirs.get(name, 'missing')} (here {version})"
        for name, version in here["versions"].items()
        if theirs.get(name) != version
    )
    faults: dict[str, str] = {}
    if differing:
        faults[differing] = "the same commit on every host: pip install -c constraints.txt -e ."
    if answer["storage"]:
        faults[f"{storage} {answer['storage']}"] = "give a --storage that all hosts share, under one path"
    if gpus and not answer["gpus"]:
        faults[f"Ray counts {gpus:g} GPUs, torch sees none"] = "see nvidia-smi there, and torch.cuda.is_available()"
    if answer["gpus"] and not gpus:
        faults[f"torch sees {answer['gpus']} GPUs, Ray counts none"] = "start Ray there with --num-gpus"
    faults |= {f"dataset {name} is missing": advice for name, advice in answer["missing"].items()}
    if not asked[0] - _CLOCKS < answer["clock"] < asked[1] + _CLOCKS:
        faults[f"its clock differs by about {answer['clock'] - asked[1]:.0f} s"] = "set it by NTP"
    return "; ".join(faults) or f"the same versions and storage, {gpus:g} GPUs", "; ".join(faults.values())
