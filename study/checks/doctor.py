"""What works here and what to do about the rest: versions, devices, Ray, datasets, results folder, tracking store.

A check is a function that returns what it found, or raises ``Ailment`` with what to do. Every host of a cluster is asked too:
it needs the same code and versions, the same storage, GPUs that torch sees, and the data.
"""

import contextlib
import functools
import importlib
import os
import platform
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypedDict

from filelock import FileLock, Timeout
from packaging.requirements import Requirement

from study.errors import UserError

_LOW_DISK = 2 * 2**30
_SERVER_SECONDS = 5.0
# A host with another release of one of these gives other numbers, or none.
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "ray")
# Clocks further apart than this, in seconds, make times in MLflow hard to read; results do not depend on them.
_CLOCKS = 60.0


class Ailment(Exception):
    """A check that failed: what was found, and what to do."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.advice = advice


class Finding(NamedTuple):
    """The outcome of one check; ``advice`` is empty when all is well."""

    name: str
    found: str
    advice: str = ""

    @property
    def well(self) -> bool:
        """Whether there is nothing to do."""
        return not self.advice


LOOKED_AT = (
    "Python, packages, our code's digest, torch and its devices, cores, Ray's start, the results folder (writing, locks), "
    "MLflow's server, the files of each dataset"
)
OF_HOSTS = "; of each host of the cluster versions, code, clock, storage, locks and data"


def examine(storage: Path, address: str | None, tracking_uri: str | None) -> Iterator[Finding]:
    """Run every check, one after another."""
    checks: dict[str, Callable[[], str]] = {
        "python": platform.python_version,
        "packages": _packages,
        "code": _code,
        "torch": _torch,
        "cores": _cores,
        "ray": lambda: _ray(address),
        "results folder": lambda: _storage(storage),
        "tracking": lambda: _tracking(tracking_uri),
    }
    found = {}
    for name, check in checks.items():
        found[name] = _finding(name, check)
        yield found[name]
    from study.registry import DATASETS

    importlib.import_module("study.data")
    here = []
    for entry in DATASETS:
        finding = _finding(f"dataset {entry.name}", functools.partial(_dataset, entry.name))
        here += [entry.name] if finding.well else []
        yield finding
    if address and found["ray"].well:
        yield from examine_hosts(address, storage, here)


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, check())
    except Ailment as ailment:
        return Finding(name, str(ailment), ailment.advice)


def _packages() -> str:
    """Every requirement of the distribution, met within its bounds."""
    listed = []
    for text in metadata.requires("fmm-study") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        again = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            raise Ailment(f"{requirement.name} is missing", again) from None
        if not requirement.specifier.contains(version, prereleases=True):
            raise Ailment(f"{requirement.name} {version} is outside {requirement.specifier}", again)
        if requirement.name in ("torch", "torchvision", "ray", "optuna", "mlflow", "pyarrow"):
            listed.append(f"{requirement.name} {version}")
    return ", ".join(listed)


def _code() -> str:
    """Where our packages are imported from, and their digest, which every worker compares with its own."""
    from study.cluster.code import ROOT, source_digest

    return f"{ROOT} (digest {source_digest()})"


def _torch() -> str:
    try:
        import torch
        import torchvision  # noqa: F401  imported to see whether it can be
    except (ImportError, RuntimeError) as error:
        # ImportError or RuntimeError: a build of one that does not fit the other
        advice = "install torch and torchvision together: pip install -c constraints.txt -e ."
        raise Ailment(str(error), advice) from None
    if not torch.cuda.is_available():
        return "no GPU; resources: {cpus: 1} in a specification runs on the CPU"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    free, total = torch.cuda.mem_get_info()
    return f"{len(names)} GPU ({', '.join(sorted(set(names)))}), {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"


def _cores() -> str:
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{there} usable"


def _ray(address: str | None) -> str:
    from study.cluster.connection import cluster_resources

    try:
        held = cluster_resources(address)
    except UserError as error:
        advice = "see /tmp/ray/session_latest/logs"
        if address:
            advice = "see `ray status` on the head, and that its port is open"
        raise Ailment(str(error), advice) from None
    nodes = sum(name.startswith("node:") and name != "node:__internal_head__" for name in held)
    return f"{nodes} node, {held.get('CPU', 0):g} CPUs, {held.get('GPU', 0):g} GPUs"


def _storage(storage: Path) -> str:
    from study.results.workspace import check_folder

    there = storage
    try:
        while not check_folder(there):
            there = there.parent
    except UserError as error:
        raise Ailment(str(error), "give another folder with --storage") from None
    if not os.access(there, os.W_OK):
        raise Ailment(f"{there} is not writable", "give another folder with --storage")
    free = shutil.disk_usage(there).free
    if free < _LOW_DISK:
        raise Ailment(f"{free / 2**30:.1f} GiB free at {there}", "free some, or give another folder with --storage")
    return f"{storage}: {free / 2**30:.0f} GiB free"


def _tracking(uri: str | None) -> str:
    if uri is None:
        return "embedded (SQLite under the results folder)"
    from study.tracking.store import masked, without_credentials

    if not uri.startswith(("http://", "https://")):
        return masked(uri)
    try:
        health = f"{without_credentials(uri).rstrip('/')}/health"
        with urllib.request.urlopen(health, timeout=_SERVER_SECONDS) as answer:
            return f"{masked(uri)}: {answer.status}"
    except (urllib.error.URLError, OSError) as error:
        advice = "start it (mlflow server --host 127.0.0.1); a study runs without it and its view is replayed later"
        raise Ailment(f"{masked(uri)} does not answer: {masked(str(error))}", advice) from None


def _dataset(name: str) -> str:
    from study.data import load_dataset, offline

    try:
        with offline():  # a check downloads nothing
            dataset = load_dataset(name)
    except UserError as error:
        raise Ailment("not here", str(error)) from None
    shape = "x".join(map(str, dataset.image_shape))
    return f"{len(dataset.pool)} + {len(dataset.test)} images {shape}, {dataset.num_classes} classes"


class Host(TypedDict):
    """What a host says of itself.

    ``versions`` of Python and packages, and a digest of our packages' source. ``gpus`` that torch sees. ``storage``: empty
    if the driver's mark is seen there and another can be left, else what is wrong. ``missing`` datasets, with what to do.
    ``clock`` in seconds since 1970.
    """

    versions: dict[str, str]
    gpus: int
    storage: str
    missing: dict[str, str]
    clock: float


def examine_hosts(address: str, storage: Path, datasets: Sequence[str]) -> Iterator[Finding]:
    """Whether the hosts of the cluster at ``address`` fit together; ``datasets`` are those that this host holds."""
    from study.cluster.connection import ask_hosts

    storage = storage.resolve()
    storage.mkdir(parents=True, exist_ok=True)
    mark = storage / f".doctor-{uuid.uuid4().hex}"
    mark.write_text("")
    lock = mark.with_suffix(".lock")
    began = time.time()
    try:
        here = describe(str(storage), mark.name, datasets)
        # a file system without locks is found by the hosts, which take it too
        with contextlib.suppress(NotImplementedError), FileLock(lock):
            answers = ask_hosts(address, describe, str(storage), mark.name, list(datasets))
    finally:
        for path in (mark, lock):
            path.unlink(missing_ok=True)
    yield _number(len(answers))
    for host, gpus, answer in answers:
        yield Finding(f"host {host}", *_host(here, gpus, answer, storage, (began, time.time())))


def describe(storage: str, mark: str, datasets: Sequence[str]) -> Host:
    """The host that this runs on. ``mark`` is the name of a file that the driver has made in ``storage``."""
    import torch

    from study.cluster.code import source_digest
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


def _seen(storage: Path, mark: str) -> str:
    if not (storage / mark).exists():
        return "is another folder there" if storage.exists() else "is not there"
    own = storage / f"{mark}.{platform.node()}"
    try:
        own.write_text("")
        own.unlink()
    except OSError as error:
        return f"cannot be written there: {error.strerror}"
    return _unlocked(storage / f"{mark}.lock")


def _unlocked(lock: Path) -> str:
    """Whether a lock that the driver holds, if it does, can be taken here too."""
    if not lock.exists():
        return ""
    try:
        with FileLock(lock, timeout=0):
            return (
                "does not lock between hosts (NFS mounted with nolock?); a study's lease still keeps a second driver out, "
                "after a minute"
            )
    except Timeout:
        return ""
    except (OSError, NotImplementedError) as error:
        return f"has no locks there: {error}"


def _number(num: int) -> Finding:
    if num > 1:
        return Finding("hosts", f"{num}")
    advice = "see `ray status` on the head; workers that come once trials wait are no fault, if FMM_STUDY_SLOTS says how many"
    return Finding("hosts", "the head alone: no worker has joined", advice)


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
        advice = "give a --storage that all hosts share, under one path"
        faults[f"{storage} {answer['storage']}"] = "mount it with locks" if "lock" in answer["storage"] else advice
    if gpus and not answer["gpus"]:
        faults[f"Ray counts {gpus:g} GPUs, torch sees none"] = "see nvidia-smi there, and torch.cuda.is_available()"
    if answer["gpus"] and not gpus:
        faults[f"torch sees {answer['gpus']} GPUs, Ray counts none"] = "start Ray there with --num-gpus"
    faults |= {f"dataset {name} is missing": advice for name, advice in answer["missing"].items()}
    if not asked[0] - _CLOCKS < answer["clock"] < asked[1] + _CLOCKS:
        faults[f"its clock differs by about {answer['clock'] - asked[1]:.0f} s"] = "set it by NTP"
    return "; ".join(faults) or f"the same versions and storage, {gpus:g} GPUs", "; ".join(faults.values())
