"""One driver a study also where locks do not lock: who holds the lease, who takes it over and when, and who stops."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from study.errors import UserError
from study.results import lease
from study.results.ledger import Ledger, segments
from study.results.workspace import Workspace

SECONDS, BEAT = 2.0, 0.2
# A driver on a file system whose locks do nothing; at each line of its input it would write a record.
HOLD = """
import fcntl, sys
from pathlib import Path
fcntl.flock = lambda *_: None
from study.errors import UserError
from study.results import lease
from study.results.workspace import Workspace
lease.LEASE_SECONDS, lease.HEARTBEAT = float(sys.argv[2]), float(sys.argv[3])
with Workspace(Path(sys.argv[1])).locked() as guard:
    print("held", flush=True)
    for _ in sys.stdin:
        try:
            guard()
            print("written", flush=True)
        except UserError as error:
            print(error, flush=True)
"""


@pytest.fixture(autouse=True)
def locks_that_do_not_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    monkeypatch.setattr(lease, "LEASE_SECONDS", SECONDS)
    monkeypatch.setattr(lease, "HEARTBEAT", BEAT)
    monkeypatch.setattr(lease, "_WATCHED", 3 * BEAT)


@contextmanager
def holding(root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(root), str(SECONDS), str(BEAT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def asked(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_a_second_driver_is_refused_on_the_same_host_and_goes_on_at_once_after_a_kill(tmp_path: Path) -> None:
    workspace, began = Workspace(tmp_path / "study"), time.monotonic()
    assert workspace.holder() is None and not list(tmp_path.iterdir())
    with holding(tmp_path / "study") as other:
        with pytest.raises(UserError) as caught, workspace.locked():
            pass
        told = f"study 'study' is being run by process {other.pid} on {socket.gethostname()} since 20"
        assert str(caught.value).startswith(told) and "\n" not in str(caught.value)
        assert workspace.holder()["pid"] == other.pid
        assert asked(other) == "written\n"
        kill(other)
        assert workspace.holder() is None
        since = time.monotonic()
        with workspace.locked() as guard:
            guard()
        assert time.monotonic() - since < SECONDS
    assert workspace.holder() is None
    assert not [path for path in (tmp_path / "study").iterdir() if path.name != "driver.lock"]
    assert time.monotonic() - began < 30


def test_another_host_waits_for_a_sign_of_life_and_takes_over_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, told = Workspace(tmp_path), list[str]()
    with holding(tmp_path) as other:
        owner = socket.gethostname()
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(UserError, match=f"is being run by process {other.pid} on {owner} since"):
            workspace.locked(told.append).__enter__()
        assert told[0].startswith(f"waiting up to 2 s for a sign of life of process {other.pid} on {owner}")
        assert workspace.holder()["host"] == owner
        kill(other)
        assert workspace.holder() is None
        since = time.monotonic()
        with workspace.locked() as guard:
            assert SECONDS <= time.monotonic() - since < SECONDS + 5
            guard()


def test_a_driver_that_lost_its_lease_stops_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that was suspended, say, and comes back."""
    with holding(tmp_path) as other:
        other.send_signal(signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: "elsewhere")
            with Workspace(tmp_path).locked() as guard:
                other.send_signal(signal.SIGCONT)
                said = asked(other)
                assert said.startswith(f"study '{tmp_path.name}' was taken over by process ") and "on elsewhere" in said
                time.sleep(3 * BEAT)
                guard()
                assert "on elsewhere" in asked(other)


def test_a_lease_of_another_length_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holding(tmp_path):
        monkeypatch.setattr(lease, "LEASE_SECONDS", 2 * SECONDS)
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(UserError, match="is being run by process"):
            Workspace(tmp_path).locked().__enter__()


def test_a_segment_has_one_writer(tmp_path: Path, config_of, record_of) -> None:
    records = [record_of(config_of(seed=seed)) for seed in range(4)]

    def free() -> None: ...

    with Ledger(tmp_path, free) as first, Ledger(tmp_path, free) as second:
        assert not segments(tmp_path)  # a driver that finds nothing to do writes nothing
        first.append(records[0])
        with pytest.raises(UserError, match=r"another driver writes .*000001\.jsonl: this one stops"):
            second.append(records[1])
    with Ledger(tmp_path, free) as third:
        third.append(records[1])
        third.append(records[2])
    assert [path.read_bytes().count(b"\n") for path in segments(tmp_path)] == [1, 2]

    def lost() -> None:
        raise UserError("lost")

    with Ledger(tmp_path, lost) as fourth, pytest.raises(UserError, match=r"^lost$"):
        fourth.append(records[3])
    assert len(segments(tmp_path)) == 2
