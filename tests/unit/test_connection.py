"""A connection to Ray: whatever it fails of is one line, and workers get no folder of the user's on their search path."""

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from study.cluster import connection
from study.cluster.connection import connected
from study.cluster.leftovers import end_orphaned_agents
from study.errors import UserError

FAULTS = {
    "none at auto": (ConnectionError("Could not find any running Ray instance."), "Could not find any running"),
    "version mismatch": (RuntimeError("Version mismatch: The cluster was started with:\n  Ray: 2.1\n"), "Ray: 2.1"),
    "the process of a worker ends": (SystemExit(1), "1"),
    "no words": (RuntimeError(), "RuntimeError"),
    "many words": (RuntimeError("x" * 9999), "xxx"),
    "a file in place of a folder": (NotADirectoryError(20, "Not a directory", "/tmp/ray"), "'/tmp/ray'"),
    "a long path": (ValueError("AF_UNIX path length cannot exceed 107 bytes: /a/b"), "107 bytes"),
}


@pytest.fixture
def inits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What ``ray.init`` raises, one after another; what it was called with, and where, in their place."""
    faults: list[Any] = []

    def init(**given: Any) -> None:
        fault, faults[0] = faults[0], (given["address"], str(Path.cwd()))
        faults.append(faults.pop(0))
        if fault is not None:
            raise fault

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield faults


@pytest.mark.parametrize("address", [None, "auto"])
@pytest.mark.parametrize(("fault", "told"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_ray_is_one_line(inits: list[Any], address: str | None, fault: Exception, told: str) -> None:
    inits.append(fault)
    with pytest.raises(UserError) as caught, connected(address):
        pytest.fail("there is no connection")
    line = str(caught.value)
    assert told in line and "\n" not in line and len(line) < 500, line
    assert ("--address auto" if address else "on this machine") in line


@pytest.mark.parametrize("fault", [RuntimeError("The current node timed out during startup."), TimeoutError("timeout")])
def test_a_start_that_takes_too_long_is_tried_once_more(inits: list[Any], fault: Exception) -> None:
    inits += [fault, None]
    with connected(None):
        pass
    assert [address for address, _ in inits] == ["local", "local"]
    inits[:] = [fault, fault]
    with pytest.raises(UserError, match="does not start on this machine"), connected(None):
        pass


def test_ray_is_started_elsewhere_and_the_driver_stays(inits: list[Any], tmp_path: Path) -> None:
    """Ray puts the folder that it is started in first on the workers' search path."""
    inits.append(None)
    with contextlib.chdir(tmp_path), connected(None):
        assert Path.cwd() == tmp_path
    assert inits == [("local", os.path.realpath(sysconfig.get_path("stdlib")))]


def test_too_few_open_files_are_told_before_ray_is_started(monkeypatch: pytest.MonkeyPatch, inits: list[Any]) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (40, 40))
    with (
        pytest.raises(UserError, match="256 open files at least, and this process may have 40: ulimit -n"),
        connected(None),
    ):
        pass
    assert not inits


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:", ":6379", "127.0.0.1:99999", "127.0.0.1:1", "http://127.0.0.1:1", "ray://127.0.0.1:1", "a b:1"],
)
def test_a_bad_address_is_one_line_before_ray_is_asked(inits: list[Any], address: str) -> None:
    with pytest.raises(UserError, match="expected HOST:PORT") as caught, connected(address):
        pass
    assert address in str(caught.value) and "\n" not in str(caught.value) and not inits


def test_an_empty_address_is_no_address(inits: list[Any]) -> None:
    with pytest.raises(UserError, match="--address is empty"), connected(""):
        pass


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"-ERR unknown command\r\n", b""]
)
def test_what_listens_and_is_no_ray_is_told(inits: list[Any], answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as there:
                there.recv(1000)
                there.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            pytest.raises(UserError, match="what listens there is no Ray"),
            connected(f"127.0.0.1:{server.getsockname()[1]}"),
        ):
            pass
        thread.join()
    assert not inits


def test_what_listens_and_says_nothing_is_told(inits: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_KNOCK_SECONDS", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(UserError, match="nothing answers there"),
        connected(f"127.0.0.1:{server.getsockname()[1]}"),
    ):
        pass


def named(name: str, parent: str) -> subprocess.Popen[str]:
    """A process called ``parent`` that has a child called ``name``, whose number it prints."""
    child = (
        f"import os, time; open('/proc/self/comm', 'w').write({name!r}); print(os.getpid(), flush=True); time.sleep(60)"
    )
    script = f"import subprocess, sys; open('/proc/self/comm', 'w').write({parent!r})\n"
    script += f"subprocess.run([sys.executable, '-c', {child!r}])"
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("name", "ends"), [("ray::RuntimeEnvAgent", True), ("ray::DashboardAgent", True), ("ray::Worker", False)]
)
def test_agents_that_wait_for_a_dead_ray_are_ended_and_no_others(name: str, ends: bool) -> None:
    raylet = named(name, "raylet")
    assert raylet.stdout
    agent = int(raylet.stdout.readline())
    try:
        end_orphaned_agents()
        os.kill(agent, 0)
        raylet.kill()
        raylet.wait()
        end_orphaned_agents()
        # its end closes the pipe
        assert (not select.select([raylet.stdout], [], [], 5 if ends else 0.2)[0]) != ends
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGKILL)
        raylet.kill()
        raylet.wait()
