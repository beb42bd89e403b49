"""A terminal that is closed while a study runs in it on Ray: what is at work is finished, and nothing is left behind."""

import contextlib
import os
import pty
import sys
import time
from pathlib import Path

import pytest
from driving import PATIENCE, UNDRAWN, num_records, write_spec


def test_a_closed_terminal_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_spec(tmp_path / "kill.yaml", blocks=8, budget="{search_trials: 0, startup_trials: 0}", contrasts="[]")
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", UNDRAWN, "run", str(spec), "--storage", str(tmp_path)])
    os.set_blocking(terminal, False)
    shown, deadline = b"", time.monotonic() + 300
    while num_records(tmp_path) < 1:
        with contextlib.suppress(OSError):
            shown += os.read(terminal, 2**16)
        assert os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline, shown.decode()
        time.sleep(0.02)
    # the kernel tells the whole session, Ray's processes too
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert 2 <= num_records(tmp_path) < 24
    assert not list((tmp_path / "kill/checkpoints").rglob("state.pt")), "a group at work was not finished"
    assert not list((tmp_path / "kill").glob(".tune-*"))
