"""What works here and what to do about the rest: versions, devices, Ray, datasets, results folder, tracking store.

A check is a function that returns what it found, or raises ``Ailment`` with what to do. Of a cluster every host is asked too.
"""

import functools
import importlib
import itertools
import os
import platform
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from study.errors import UserError

_LOW_DISK = 2 * 2**30
_SERVER_SECONDS = 5.0


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


def examine(storage: Path, address: str | None, tracking_uri: str | None) -> Iterator[Finding]:
    """Run every check, one after another."""
    checks: dict[str, Callable[[], str]] = {
        "python": platform.python_version,
        "packages": _packages,
        "torch": _torch,
        "cores": _cores,
        "ray": lambda: _ray(address),
        "results folder": lambda: _storage(storage),
        "tracking": lambda: _tracking(tracking_uri),
    }
    ill = set()
    for name, check in checks.items():
        finding = _finding(name, check)
        ill |= set() if finding.well else {name}
        yield finding
    from study.registry import DATASETS

    importlib.import_module("study.data")
    here = []
    for entry in DATASETS:
        finding = _finding(f"dataset {entry.name}", functools.partial(_dataset, entry.name))
        here += [entry.name] if finding.well else []
        yield finding
    if address and "ray" not in ill:
        from study.checks.cluster import examine_hosts

        yield from itertools.starmap(Finding, examine_hosts(address, storage, here))


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
        if address is not None and (port := address.rpartition(":")[2]).isdigit():
            # Ray itself waits a minute for a cluster that is not there, then ends the process
            host = address.removeprefix("ray://").rpartition(":")[0]
            socket.create_connection((host, int(port)), timeout=_SERVER_SECONDS).close()
        held = cluster_resources(address)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where, advice = "Ray does not start on this machine", "see /tmp/ray/session_latest/logs"
        if address:
            where, advice = f"no cluster at {address!r}", "see `ray status` on the head, and that its port is open"
        raise Ailment(f"{where}: {str(error).splitlines()[0]}", advice) from None
    nodes = sum(name.startswith("node:") and name != "node:__internal_head__" for name in held)
    return f"{nodes} node, {held.get('CPU', 0):g} CPUs, {held.get('GPU', 0):g} GPUs"


def _storage(storage: Path) -> str:
    there = storage
    while not there.exists():
        there = there.parent
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
