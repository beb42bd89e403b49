"""Memory that is freed and taken again, by the system's own count of page faults."""

import ctypes
import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from study.training.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def taken():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        maps = [torch.ones(2**21) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.set_num_threads(1)
print([taken() for _ in range(5)][-1])
"""


def faults(kept: str) -> int:
    # glibc's thresholds before they grow with what a process has freed
    environ = os.environ | {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", SCRIPT, kept]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc"
)
def test_what_is_freed_is_taken_again_without_a_fault():
    assert faults("kept") < 200
    # twenty times four maps of 8 MiB, 2,048 pages each
    assert faults("given back") > 100_000
