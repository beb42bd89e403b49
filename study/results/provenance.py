"""What a study was run with: code, versions, machine, data.

``run`` writes it into ``provenance.json``, an entry per session that differs from the last, so that a report made later,
elsewhere or by newer code still says how the results were made. It holds no credentials and no user name.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.atomic import write_json
from study.data import Dataset, Facts, data_root, load_dataset
from study.data.stream import StreamedSplit
from study.errors import UserError
from study.registry import DATASETS
from study.results.files import PROVENANCE
from study.results.sessions import read_sessions, without_end

# What must not change between the sessions of a study, of a dataset and of a plug-in.
_CONTENT = ("num_pool", "num_val", "num_test", "num_classes", "image_shape", "digest", "file_sizes")
_PACKAGES = ("fmm-study", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "scipy", "pyarrow")


def note_session(
    root: Path,
    datasets: Iterable[str],
    *,
    gpus: float = 0,
    price: float | None = None,
    plugins: Mapping[str, Mapping[str, str]] | None = None,
    outcomes: Mapping[str, Sequence[Mapping[str, str]]] | None = None,
    accept: bool = False,
    in_process: bool = False,
) -> None:
    """Add how the study runs now to ``provenance.json``, unless the last entry says the same. Loads each dataset (cached).

    Raises ``UserError`` where data or a plug-in's code is not what an earlier session ran with; with ``accept`` that is noted.
    ``gpus``: what a group of replicates occupies; 0 is the CPU. ``price``: of an hour of a GPU, or of a core.
    ``plugins``: as ``study.plugins.plugin_sources`` gives them. ``outcomes``: by statistic of a plug-in, what it
    estimates, for who reads the study without it. ``in_process``: trained by the driver itself.
    """
    session: dict[str, Any] = {
        **_commit(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        "cpu": cpu_name(),
        "device": _device(gpus),
        "packages": {name: version for name in _PACKAGES if (version := package_version(name))},
        "datasets": {name: fingerprint(name) for name in sorted(set(datasets))},
    }
    if plugins:
        session["plugins"] = {name: dict(source) for name, source in plugins.items()}
    if outcomes:
        session["outcomes"] = {name: [dict(each) for each in found] for name, found in outcomes.items()}
    if in_process:
        session["in_process"] = True
    if price is not None:
        session["price"] = price
    sessions = read_sessions(root)
    if changed := _changes(sessions, session):
        if not accept:
            raise UserError(
                f"{changed[0]}; put it back, or take another name or --storage for a study of what is there now, or mix both "
                f"in {root} and have that told: --accept-changes"
            )
        session["accepted"] = changed
    if [without_end(held) for held in sessions[-1:]] != [session]:
        write_json(root / PROVENANCE, [*sessions, session])


def _changes(sessions: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> list[str]:
    """Where data or plug-ins of the session ``now`` differ from those of earlier ones, since changes were last accepted.

    By what they hold: where it lies, and what it is told of itself (address, version), may differ.
    """
    kinds = ("datasets", f"dataset {{}} in {data_root()}"), ("plugins", "plug-in module {} ({})")
    last = max((number for number, session in enumerate(sessions) if "accepted" in session), default=0)
    found: dict[str, str] = {}
    for earlier in sessions[last:]:
        for kind, called in kinds:
            for name, held in now.get(kind, {}).items():
                before = earlier.get(kind, {}).get(name, {})
                known = [*_CONTENT, *(key for key in held if key.startswith("imports "))]
                differ = [key for key in known if key in before and key in held and before[key] != held[key]]
                if differ:
                    what = called.format(name, held.get("registers") or "registers nothing")
                    told = "; ".join(f"{key} was {_short(before[key])}, is {_short(held[key])}" for key in differ)
                    found[what] = f"{what} is not what the study was run with: {told}"
    return list(found.values())


def _short(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


def noted_facts(sessions: Iterable[Mapping[str, Any]]) -> dict[str, Facts]:
    """What a study noted of its datasets, by name: enough to plan it where they are not."""
    found: dict[str, Facts] = {}
    for session in sessions:
        for name, noted in session.get("datasets", {}).items():
            with contextlib.suppress(KeyError, TypeError):  # of a version that noted less
                num_val = noted.get("num_val", noted["num_pool"] // 10)
                found[name] = Facts(
                    image_shape=tuple(noted["image_shape"]),
                    num_classes=noted["num_classes"],
                    num_train=noted["num_pool"] - num_val,
                    num_val=num_val,
                    num_test=noted["num_test"],
                )
    return found


def fingerprint(name: str) -> dict[str, Any]:
    """Digest (16 hex digits) of a dataset's images and labels, pool then test, and its sizes in images.

    ``file_sizes``, where images stay in their files and the digest is of names and labels: a digest of the files' sizes.
    """
    dataset = load_dataset(name)
    digest = hashlib.blake2b(digest_size=8)
    for part in (dataset.pool, dataset.test):
        for tensor in part.content():
            digest.update(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor.contiguous().numpy().data)
    found = {"file_sizes": _sizes_digest(parts)} if (parts := _streamed(dataset)) else {}
    return {
        "digest": digest.hexdigest(),
        **found,
        "source": DATASETS[name].source,
        "num_pool": len(dataset.pool),
        "num_val": dataset.num_val,
        "num_test": len(dataset.test),
        "num_classes": dataset.num_classes,
        "image_shape": list(dataset.image_shape),
    }


def _streamed(dataset: Dataset) -> list[StreamedSplit]:
    return [part for part in (dataset.pool, dataset.test) if isinstance(part, StreamedSplit)]


def _sizes_digest(parts: Iterable[StreamedSplit]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.file_sizes().tobytes())
    return digest.hexdigest()


def _commit(folder: Path) -> dict[str, Any]:
    """The commit of the checkout that holds ``folder``, and whether tracked files differ; empty outside a checkout."""
    try:
        commit, changed = (
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True, timeout=10).stdout
            for command in (
                ["log", "-1", "--format=%H", "--", "."],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    # an installation inside some other project's checkout has no commit of its own
    return {"git_commit": commit.strip(), "git_dirty": bool(changed.strip())} if commit.strip() else {}


def package_version(package: str) -> str:
    """The release of an installed package; empty if it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def cpu_name() -> str:
    """``<model> x <usable cores>``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = (line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line)
        model = next(names, model)
    return f"{model} x {cores}"


def _device(gpus: float) -> str:
    if not gpus:
        return "cpu"
    import torch

    # on a cluster the driver's host may have no GPU of its own
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cuda"
