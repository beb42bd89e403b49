"""A driver that is asked to stop, by Ctrl-C or SIGTERM: a spot notice, a batch system's time limit, ``ray job stop``."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def draining(drain: Callable[[], None]) -> Iterator[None]:
    """Call ``drain`` at the first signal: running groups finish and no more are started.

    The second signal meets the handlers that were there before: it stops at once, and nothing is lost. Outside the main
    thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # enter with Ray started: this replaces Ray's own handler of SIGTERM, which aborts
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
