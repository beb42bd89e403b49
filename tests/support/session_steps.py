"""Plans of steps for the tests of ``benchmarks.gpu_session``: what is good, what fails, what kills, what takes too long."""

import os
import time

from benchmarks.gpu_session import Found


def good(given):
    yield "first", lambda: Found(values=[1.0, 3.0, 2.0], unit="s", least=2.0)
    yield "kind: one", lambda: Found(values=[0.5], unit="of it", most=1.0)
    yield "kind: two", lambda: Found(values=[0.25], unit="of it", most=1.0)
    yield "kind: three", lambda: Found(values=[1.5], unit="of it", most=1.0)


def fails():
    raise ValueError("a fault\nof two lines")


def faulty(given):
    yield "before", lambda: Found(values=[1.0], unit="s")
    yield "raises", fails
    yield "kills", lambda: os._exit(9)
    yield "after", lambda: Found(values=[given.held("before")[0] + 1], unit="s")


def faults_of_a_device(given):
    yield "poisons", lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: an illegal memory access"))
    yield "by another process", lambda: Found(values=[float(os.getpid())], unit="pid")


def slow(given):
    yield "in time", lambda: Found(values=[1.0], unit="s")
    yield "too long", lambda: time.sleep(600)
    yield "never", lambda: Found(values=[1.0], unit="s")


def broken(given):
    raise RuntimeError("the plan itself")
    yield
