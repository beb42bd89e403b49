"""A connection to Ray, what a cluster holds, and questions to its hosts."""

import contextlib
import logging
import os
import re
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.cluster.code import Surroundings, away, surroundings, take_up
from study.cluster.leftovers import end_orphaned_agents
from study.errors import UserError

# Ray on one machine with a few workers has some hundred files and sockets open.
LEAST_FILES = 256
_LONGEST = 300
_KNOCK_SECONDS = 10.0
# Ray's control store speaks gRPC, and so HTTP/2: both sides begin with a frame of settings (RFC 9113, 3.4).
_SETTINGS = b"\x04"
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0" * 5
# Seconds that a host may take to answer: its first task starts a process that imports torch.
ANSWER_SECONDS = 120.0


@contextlib.contextmanager
def connected(address: str | None, num_cpus: int | None = None) -> Iterator[None]:
    """A connection to Ray for the block; one that there is already is used and left open.

    ``address``: a running cluster; ``None`` for this machine with ``num_cpus`` cores, or what ``RAY_ADDRESS`` says. Raises
    ``UserError`` in one line, whatever Ray fails of.
    """
    if ray.is_initialized():
        yield
        return
    if address == "":
        raise UserError("--address is empty: leave it out to run on this machine")
    # without "local" Ray would take a cluster that somebody has started on this machine
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if address == "local":
            _start(num_cpus)
        else:
            _knock(address)
            _connect(address)
        yield
    finally:
        ray.shutdown()
        if address == "local":
            end_orphaned_agents()


def _start(num_cpus: int | None) -> None:
    """Ray on this machine; on a busy one a second time. Raises ``UserError``."""
    if (most := resource.getrlimit(resource.RLIMIT_NOFILE)[1]) < LEAST_FILES:
        raise UserError(
            f"Ray needs {LEAST_FILES} open files at least, and this process may have {most}: ulimit -n {LEAST_FILES}, or more"
        )
    end_orphaned_agents()
    # Ray's processes get no hangup: when the terminal is closed, the driver lets them finish
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        try:
            _connect("local", num_cpus=num_cpus, include_dashboard=False)
        except UserError as error:
            # "timed out", "timeout": the second time, what takes long (reading from a cold disk) is done
            if not {"timed", "timeout"} & set(re.findall(r"\w+", str(error).lower())):
                raise
            ray.shutdown()
            _connect("local", num_cpus=num_cpus, include_dashboard=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _connect(address: str, **local: Any) -> None:
    try:
        with away():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    # also what the process of a worker ends with
    except (Exception, SystemExit) as error:
        told = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        if local:
            raise UserError(
                f"Ray does not start on this machine: {told} (RAY_TMPDIR names another folder for its files, of a short path)"
            ) from error
        raise UserError(f"--address {address}: no connection to Ray: {told}; see `ray status` on the head") from error


def _knock(address: str) -> None:
    """Raise ``UserError`` unless what listens at ``address`` may be Ray, which would wait a minute and end the process."""
    where = address.partition("://")[2] or address
    host, colon, port = where.rpartition(":")
    if not colon:
        # "auto" and folders of sessions are Ray's to find
        return
    wanted = f"--address {address}: expected HOST:PORT of a cluster's head, as `ray start` prints it"
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(wanted)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS) as there:
            there.sendall(_HELLO)
            # the kind of an HTTP/2 frame is its fourth byte
            answer = there.recv(9)
    except OSError as error:
        raise UserError(f"{wanted}; nothing answers there: {error.strerror or error}") from None
    if answer[3:4] != _SETTINGS:
        raise UserError(f"{wanted}; what listens there is no Ray")


def cluster_resources(address: str | None) -> dict[str, float]:
    """What the cluster at ``address`` holds, or this machine. Raises ``UserError`` when there is none."""
    with connected(address):
        held: dict[str, float] = ray.cluster_resources()
        return held


def ask_hosts(address: str | None, question: Callable[..., Any], *given: Any) -> list[tuple[str, Any, Any]]:
    """``question(*given)`` on every host: its name, the GPUs that Ray counts there, and the answer or the exception.

    ``question`` must be importable on the hosts. Raises ``UserError`` when there is no cluster.
    """
    with connected(address):
        asked = []
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(question)
                name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
                asked.append((name, node["Resources"].get("GPU", 0), remote.remote(*given)))
        return [(name, gpus, _answer(ref)) for name, gpus, ref in asked]


class _Host:
    """Runs functions in a process of its own."""

    def run(self, given: Surroundings, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        take_up(given)
        return function(*arguments)


@contextlib.contextmanager
def asking_a_gpu(
    address: str | None, plugins: Sequence[str], tell: Callable[[str], None]
) -> Iterator[Callable[..., Any]]:
    """A caller that runs functions in a process which holds a whole GPU of the cluster, from the first call on.

    The first call waits for a GPU where the cluster grows. Calls raise ``UserError`` where there is no GPU, or none answers.
    """
    held: list[Any] = []
    with contextlib.ExitStack() as stack:

        def ask(function: Callable[..., Any], *arguments: Any) -> Any:
            if not held:
                stack.enter_context(connected(address))
                if not os.environ.get("FMM_STUDY_SLOTS") and not ray.cluster_resources().get("GPU"):
                    raise UserError("the cluster has no GPU: fmm-study doctor --address asks every host why")
                tell("borrowing a GPU of the cluster to measure on, as soon as there is one")
                held.append(ray.remote(num_gpus=1, num_cpus=0)(_Host).remote())
                stack.callback(ray.kill, held[0])
            try:
                return ray.get(held[0].run.remote(surroundings(plugins), function, arguments))
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", error)
                if isinstance(cause, UserError):
                    raise UserError(str(cause)) from error
                told = f"{type(cause).__name__}: {cause}".splitlines()[0]
                raise UserError(f"on a GPU of the cluster: {told}") from error

        yield ask


def slots(cpus: float, gpus: float) -> int:
    """How many groups the cluster runs at once. Raises ``UserError`` if it cannot hold one.

    Of a cluster that grows by what waits, ``FMM_STUDY_SLOTS`` says how many.
    """
    if told := os.environ.get("FMM_STUDY_SLOTS"):
        if not told.isdecimal() or told == "0":
            raise UserError(f"FMM_STUDY_SLOTS = {told!r}: a whole number from 1 is expected")
        return int(told)
    held = ray.cluster_resources()
    for name, asked, there in (("cpus", cpus, held.get("CPU", 0.0)), ("gpus", gpus, held.get("GPU", 0.0))):
        if asked > there:
            raise UserError(
                f"resources.{name} = {asked:g} but {there:g} are there: lower it, or run where there are more"
            )
    shares = [held.get("CPU", 0.0) / cpus] + ([held["GPU"] / gpus] if gpus else [])
    return max(1, int(min(shares)))


def _answer(ref: Any) -> Any:
    try:
        return ray.get(ref, timeout=ANSWER_SECONDS)
    except Exception as error:  # noqa: BLE001  whatever a host cannot do is its answer
        return error
