"""A notice to stop: Ctrl-C, SIGTERM, a closed terminal. On Ray: test_kill.py, test_faults_of_a_study.py."""

import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from study.driver.notice import draining
from study.printing.console import lasting_output


@pytest.fixture
def handlers() -> Iterator[None]:
    """Every notice meets the handler of Ctrl-C, as a run begins; afterwards what there was."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_is_closed_drains_however_often_it_says_so(handlers: None, first: signal.Signals) -> None:
    asked: list[int] = []
    with draining(lambda: asked.append(1)):
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
    assert asked == [1]
    assert signal.getsignal(signal.SIGHUP) is signal.default_int_handler


def test_what_nohup_has_set_stays(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asked: list[int] = []
    with draining(lambda: asked.append(1)):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)
    assert not asked and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


PRINTING = """
import sys
from study.printing.console import lasting_output, open_console, say
with lasting_output():
    for i in range(3):
        input()
        say(open_console(), "a line")
        sys.stderr.write("another\\n")
"""


def test_a_pipe_that_is_gone_ends_nothing() -> None:
    command = [sys.executable, "-c", PRINTING]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdin and process.stdout
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"a line\n"
    process.stdout.close()
    process.stdin.write(b"\n\n")
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_where_there_is_no_stream_nothing_is_printed(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    with lasting_output():
        sys.stdout.write("a line")
        sys.stdout.flush()
    assert sys.stdout is stream and (stream is None or stream.getvalue() == "a line")


def test_other_faults_of_a_stream_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(sys, "stdout", Full())
    with lasting_output(), pytest.raises(OSError, match="full"):
        sys.stdout.write("a line")


@pytest.mark.parametrize("name", ["typer", "torch"])
def test_ctrl_c_while_modules_are_imported_is_one_line(name: str) -> None:
    script = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from study.cli import main
sys.argv = ["fmm-study", "levels", "outcome"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fmm-study: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_notice_to_stop_drains_and_the_second_one_stops(number: int) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)
    asked: list[int] = []
    try:
        with pytest.raises(KeyboardInterrupt), draining(lambda: asked.append(1)):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            assert asked == [1]
            os.kill(os.getpid(), number)
            time.sleep(1)
            pytest.fail("the second notice did not stop it")
    finally:
        for each, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(each, handler)
    assert asked == [1]


def test_another_thread_has_no_signals() -> None:
    done: list[bool] = []

    def enter() -> None:
        with draining(lambda: None):
            done.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert done == [True]
