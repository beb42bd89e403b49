"""Memory that a process frees and takes again: a training step on a CPU does so for every map, hundreds of times a second.

glibc gives large blocks back to the system at once, and each page of the next one is a fault. Kept, they cost nothing; a
process then holds what it held at its peak.
"""

import ctypes
import functools
import sys

# of <malloc.h>: what is free at the heap's top is given back from so many bytes on, and so many are a block of their own
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# the second is what older versions of glibc take at most
_MOST = (2**31 - 1, 2**25)


@functools.cache
def keep_freed_memory() -> None:
    """Have this process's C library keep what is freed; nothing happens where it is not glibc."""
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        next((most for most in _MOST if library.mallopt(option, most)), None)
