"""A notice to stop: Ctrl-C, SIGTERM, a closed terminal."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator


@contextlib.contextmanager
def draining(drain: Callable[[], None]) -> Iterator[None]:
    """Call ``drain`` at the first SIGINT, SIGTERM or SIGHUP: running groups finish and no more are started.

    The second SIGINT or SIGTERM meets the handlers that were there before: it stops at once, and nothing is lost. A terminal
    that is closed sends several SIGHUP, which all ask for the same; one that is ignored (``nohup``) stays so. Outside the
    main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # enter with Ray started: this replaces Ray's own handler of SIGTERM, which aborts
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    asked = False

    def restore(numbers: Iterable[signal.Signals]) -> None:
        for number in numbers:
            signal.signal(number, before[number])

    def stop(number: int, _: object) -> None:
        nonlocal asked
        if not asked:
            drain()
        asked = True
        if number != signal.SIGHUP:
            restore(before.keys() - {signal.SIGHUP})

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore(before)
