"""Whether the hosts of a cluster fit together: the same code and versions, one storage, GPUs that torch sees, the data."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from study.checks.host import Host, describe
from study.cluster.connection import ask_hosts

# Clocks further apart than this, in seconds, make times in MLflow hard to read; results do not depend on them.
_CLOCKS = 60.0

# What was looked at, what was found, what to do (empty when all is well).
Told = tuple[str, str, str]


def examine_hosts(address: str, storage: Path, datasets: Sequence[str]) -> Iterator[Told]:
    """Ask every host of the cluster at ``address``; ``datasets`` are those that this host holds."""
    storage.mkdir(parents=True, exist_ok=True)
    mark = storage.resolve() / f".doctor-{uuid.uuid4().hex}"
    mark.write_text("")
    began = time.time()
    try:
        here = describe(str(storage.resolve()), mark.name, datasets)
        answers = ask_hosts(address, describe, str(storage.resolve()), mark.name, list(datasets))
    finally:
        mark.unlink(missing_ok=True)
    yield _number(len(answers))
    for host, gpus, answer in answers:
        yield f"host {host}", *_host(here, gpus, answer, storage.resolve(), (began, time.time()))


def _number(num: int) -> Told:
    if num > 1:
        return "hosts", f"{num}", ""
    advice = "see `ray status` on the head; workers that come once trials wait are no fault, if FMM_STUDY_SLOTS says how many"
    return "hosts", "the head alone: no worker has joined", advice


def _host(
    here: Host, gpus: float, answer: Host | Exception, storage: Path, asked: tuple[float, float]
) -> tuple[str, str]:
    """What one host has answered, against the driver's own; ``asked`` is when, from and to."""
    if isinstance(answer, Exception):
        return (
            f"gives no answer: {str(answer).strip().splitlines()[-1] if str(answer).strip() else type(answer).__name__}",
            "install fmm-study there, and open the ports between hosts (docs/cluster.md)",
        )
    faults: list[tuple[str, str]] = []
    if differing := _differing(here["versions"], answer["versions"]):
        faults.append((differing, "the same commit on every host: pip install -c constraints.txt -e ."))
    if answer["storage"]:
        faults.append((f"{storage} {answer['storage']}", "give a --storage that all hosts share, under one path"))
    if gpus and not answer["gpus"]:
        faults.append(
            (f"Ray counts {gpus:g} GPUs, torch sees none", "see nvidia-smi there, and torch.cuda.is_available()")
        )
    if answer["gpus"] and not gpus:
        faults.append((f"torch sees {answer['gpus']} GPUs, Ray counts none", "start Ray there with --num-gpus"))
    for name, advice in answer["missing"].items():
        faults.append((f"dataset {name} is missing", advice))
    if not asked[0] - _CLOCKS < answer["clock"] < asked[1] + _CLOCKS:
        faults.append((f"its clock differs by about {answer['clock'] - asked[1]:.0f} s", "set it by NTP"))
    if not faults:
        return f"the same versions and storage, {gpus:g} GPUs", ""
    return "; ".join(found for found, _ in faults), "; ".join(advice for _, advice in faults)


def _differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    pairs = [
        f"{name} {theirs.get(name, 'missing')} (here {version})"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]
    return ", ".join(pairs)
