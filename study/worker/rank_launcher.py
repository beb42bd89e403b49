"""Starts and watches the processes (ranks) that train one replicate, one per GPU.

Their training is in the replicate's ``state.pt``, as if it had been trained here; ``study.worker.group`` then finds it
finished, evaluates, keeps and measures. A rank that raises ends all ranks, with its reason; when one is lost (killed, say) all
are restarted from the last epoch. They meet by a file in a folder of their own and listen on the loopback only.
"""

import contextlib
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from study.config import Task
from study.data.decoding import LOADERS_VARIABLE, num_loaders
from study.errors import UserError
from study.training import Progress
from study.training.process_group import RanksLost
from study.worker.ahead import is_trained

# Restarts of the ranks without a finished epoch in between.
MAX_LOST = 3
_MEETING = "fmm-study-ranks-"
# Seconds between checks for a rank that ended without closing its output.
_CHECK = 1.0


def train_in_ranks(
    task: Task, folder: Path, *, device: str, threads: int, plugins: Sequence[str] = ()
) -> Iterator[Progress]:
    """Train ``task`` in ``task.ranks`` processes into ``folder / "state.pt"``; nothing if it has been trained.

    ``threads`` per rank; ``plugins`` are modules that each imports. Raises ``UserError`` with the reason of a failed rank,
    for fewer GPUs than ranks, and when ranks were lost more than ``MAX_LOST`` times in a row without finishing an epoch.
    """
    if is_trained(folder):
        return
    if device == "cuda" and torch.cuda.device_count() < task.ranks:
        raise UserError(
            f"resources.data_parallel = {task.ranks}: a GPU each is needed, but {torch.cuda.device_count()} are visible"
        )
    given = {"task": task.to_plain(), "folder": str(folder), "device": device, "threads": threads}
    # the same module search path, with plug-ins' folders; not by PYTHONPATH: Python would look there for ``sitecustomize``
    given |= {"size": task.ranks, "plugins": list(plugins), "path": [path or str(Path.cwd()) for path in sys.path]}
    lost = 0
    while True:
        try:
            for progress in _attempt(given):
                lost = 0
                yield progress
            return
        except RanksLost as error:
            lost += 1
            if lost > MAX_LOST:
                raise UserError(
                    f"its ranks were lost {lost} times in a row without finishing an epoch: {error}"
                ) from None


def _attempt(given: dict[str, Any]) -> Iterator[Progress]:
    """Start all ranks and watch them until they end. Raises ``RanksLost`` or ``UserError``; leaves no process behind."""
    with _meeting() as meeting, contextlib.ExitStack() as stack:
        processes = []
        for rank in range(given["size"]):
            # which on leaving closes its pipes and waits for the process
            process = stack.enter_context(_started({**given, "rank": rank, "meeting": f"{meeting}/store"}))
            stack.callback(_kill, process)
            processes.append(process)
        yield from _watched(processes)


@contextlib.contextmanager
def _meeting() -> Iterator[Path]:
    """A temporary folder of this process, which holds a lock there; folders that killed processes have left are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_MEETING}*/lock"):
        with contextlib.suppress(OSError), left.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_MEETING) as folder, (Path(folder) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)


def _started(given: dict[str, Any]) -> subprocess.Popen[bytes]:
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    alone = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    if LOADERS_VARIABLE not in os.environ:
        # each rank has its share of the trial's cores
        alone[LOADERS_VARIABLE] = str(max(1, num_loaders() // given["size"]))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "study.worker.rank_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**alone, **os.environ},
        start_new_session=True,
    )
    assert process.stdin
    # a process that has ended already is noticed by ``_watched``
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(given).encode() + b"\n")
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a rank and the processes that load its data: they are a process group, and the loaders outlive a killed rank."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _watched(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[Progress]:
    done: set[int] = set()
    with selectors.DefaultSelector() as selector:
        for rank, process in enumerate(processes):
            assert process.stdout
            selector.register(process.stdout, selectors.EVENT_READ, rank)
        while len(done) < len(processes):
            ended = {rank for rank, process in enumerate(processes) if process.poll() is not None}
            for key, _ in selector.select(timeout=_CHECK):
                # a report is one line, written at once
                report = _parsed(key.fileobj.readline())  # type: ignore[union-attr]
                if "progress" in report:
                    yield Progress(*report["progress"])
                elif "done" in report:
                    done.add(key.data)
                    selector.unregister(key.fileobj)
                else:
                    raise _reason(processes, {key.data: report})
            if ended - done and not any(key.data in ended - done for key, _ in selector.select(timeout=0)):
                raise _reason(processes, {})


def _parsed(line: bytes) -> dict[str, Any]:
    """A report; empty if the rank ended in the middle of one or without any."""
    try:
        report: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return report


def _reason(processes: Sequence[subprocess.Popen[bytes]], reports: dict[int, dict[str, Any]]) -> Exception:
    """Why ranks have ended: the fault that one has reported, else that one was lost. Ends all of them first."""
    for rank in reports:  # these have reported and are about to end
        with contextlib.suppress(subprocess.TimeoutExpired):
            processes[rank].wait(_CHECK)
    gone = [f"rank {rank} ended ({process.returncode})" for rank, process in enumerate(processes) if process.poll()]
    for process in processes:
        _kill(process)
    for rank, process in enumerate(processes):
        process.wait()
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        for line in (process.stdout.read() or b"").splitlines():
            reports[rank] = reports.get(rank, {}) | _parsed(line)
    for _, report in sorted(reports.items()):
        if "fault" in report:
            return UserError(report["fault"])
    told = [report["lost"] for report in reports.values() if "lost" in report]
    return RanksLost("; ".join([*gone, *told]) or "a rank ended without a word")
