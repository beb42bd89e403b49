"""A connection to Ray, what a cluster holds, and questions to its hosts."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.errors import UserError

# Seconds that a host may take to answer: its first task starts a process that imports torch.
ANSWER_SECONDS = 120.0


@contextlib.contextmanager
def connected(address: str | None, num_cpus: int | None = None) -> Iterator[None]:
    """A connection to Ray for the block; one that there is already is used and left open.

    ``address``: a running cluster; ``None`` for this machine with ``num_cpus`` cores, or what ``RAY_ADDRESS`` says.
    """
    if ray.is_initialized():
        yield
        return
    # without "local" Ray would take a cluster that somebody has started on this machine
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    local = {"num_cpus": num_cpus, "include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        yield
    finally:
        ray.shutdown()


def cluster_resources(address: str | None) -> dict[str, float]:
    """What the cluster at ``address`` holds, or this machine. Raises ``ConnectionError`` when there is none."""
    with connected(address):
        held: dict[str, float] = ray.cluster_resources()
        return held


def ask_hosts(address: str | None, question: Callable[..., Any], *given: Any) -> list[tuple[str, Any, Any]]:
    """``question(*given)`` on every host: its name, the GPUs that Ray counts there, and the answer or the exception.

    ``question`` must be importable on the hosts. Raises ``ConnectionError`` when there is no cluster.
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

    def run(self, plugins: Sequence[str], folder: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        # here, because it imports torch, which other users of this module do not need
        from study.plugins import load_plugins

        load_plugins(plugins, folder)
        return function(*arguments)


@contextlib.contextmanager
def asking_a_gpu(
    address: str | None, plugins: Sequence[str], folder: str, tell: Callable[[str], None]
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
                return ray.get(held[0].run.remote(plugins, folder, function, arguments))
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
