"""https://arxiv.org/abs/2006.15704 (PyTorch Distributed): a replicate that several processes train, one on each GPU.

``train_in_ranks`` starts the ranks (``study.worker.rank_process``), watches them and passes their progress on. Their
training lies in the
replicate's ``state.pt``, as if it had been trained here; ``study.worker.group`` then finds it at its end, evaluates, keeps and
measures, alone. A rank that raises ends all of them, with its reason; one that is lost (killed, say) ends them too, and
all begin again at the last epoch. They meet by a file in a folder of their own and listen on the loopback alone.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from study.data.stream import LOADERS_VARIABLE, num_loaders
from study.errors import UserError
from study.results.files import FINAL, OUTCOME
from study.task import Task
from study.training import Progress
from study.training.process_group import RanksLost

# How often ranks are started anew, with no epoch finished in between.
MAX_LOST = 3
# How often it is looked whether a rank is gone that did not close what it reports by, in seconds.
_LOOK = 1.0


def train_in_ranks(
    task: Task, folder: Path, *, device: str, threads: int, plugins: Sequence[str] = ()
) -> Iterator[Progress]:
    """Train ``task`` in ``task.ranks`` processes into ``folder / "state.pt"``; nothing if it has been trained.

    ``threads`` are each rank's, ``plugins`` modules that it imports. Raises ``UserError`` with the reason of a rank that
    failed, for fewer GPUs than ranks, and when ranks were lost more than ``MAX_LOST`` times in a row without finishing an
    epoch.
    """
    if any((folder / name).exists() for name in (OUTCOME, FINAL)):
        return
    if device == "cuda" and torch.cuda.device_count() < task.ranks:
        raise UserError(
            f"resources.data_parallel = {task.ranks}: a GPU each is needed, but {torch.cuda.device_count()} are visible"
        )
    given = {"task": task.to_plain(), "folder": str(folder), "device": device, "threads": threads}
    given |= {"size": task.ranks, "plugins": list(plugins)}
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
    """Start all ranks and watch them to their end. Raises ``RanksLost`` or ``UserError``; leaves no process behind."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="fmm-study-ranks-") as meeting:
        try:
            for rank in range(given["size"]):
                processes.append(_started({**given, "rank": rank, "meeting": f"{meeting}/store"}))
            yield from _watched(processes)
        finally:
            for process in processes:
                _kill(process)
            for process in processes:
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe:
                        pipe.close()


def _started(given: dict[str, Any]) -> subprocess.Popen[bytes]:
    # where modules are looked for here, a plug-in's folder included, they are looked for there
    paths = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    alone = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    if LOADERS_VARIABLE not in os.environ:
        # of the trial's cores, each rank has its share
        alone[LOADERS_VARIABLE] = str(max(1, num_loaders() // given["size"]))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "study.worker.rank_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**alone, **os.environ, **paths},
        start_new_session=True,
    )
    assert process.stdin
    # one that is gone already is seen where it is watched
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(given).encode() + b"\n")
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a rank and the processes that load its data, which are left where it was killed: they are a group of their own."""
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
            for key, _ in selector.select(timeout=_LOOK):
                # a report is a line, written at once
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
    """A report; empty where a rank has ended, in the middle of one or without any."""
    try:
        report: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return report


def _reason(processes: Sequence[subprocess.Popen[bytes]], reports: dict[int, dict[str, Any]]) -> Exception:
    """Why ranks have ended: the fault that one of them reports, else that one was lost.

    All are ended first. A rank reports its fault before the others can notice that it is gone, so it is there to be read.
    """
    for rank in reports:  # they have said their last, and are about to end
        with contextlib.suppress(subprocess.TimeoutExpired):
            processes[rank].wait(_LOOK)
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
