"""A notice to stop: Ctrl-C or SIGTERM, the first and the second one. On Ray: test_kill.py, test_faults_of_a_study.py."""

import os
import signal
import threading
import time

import pytest

from study.cluster.tune import draining


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
