"""https://docs.python.org/3/library/signal.html: a driver that is asked to stop, by Ctrl-C or by SIGTERM (a spot notice, a
batch system's time limit, ``ray job stop``).
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def draining(drain: Callable[[], None]) -> Iterator[None]:
    """The first signal calls ``drain``, after which running groups finish and no more are started; the second has the
    handlers that were there before: it stops at once, which loses nothing. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # to be entered with Ray started: its own handler of SIGTERM, which aborts, is put out of action
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(*_: object) -> None:
        drain()
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
