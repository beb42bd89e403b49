"""https://docs.ray.io/en/latest/ray-core/starting-ray.html: what a run needs before it begins, got side by side.

Ray's processes take seconds to come up, and the driver seconds to import: neither waits for the other.
"""

import contextlib
import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from study.results.workspace import Workspace


@contextlib.contextmanager
def started(
    workspace: Workspace, address: str | None, num_cpus: int | None
) -> Iterator[tuple[Any, contextlib.ExitStack | None]]:
    """``study.commands.run``, and a connection to Ray, closed at the end if nobody did before.

    ``None`` for a study that has begun: it may be done, or refused, and then needs no Ray. Raises what ``connected`` raises.
    """
    with ThreadPoolExecutor(1) as other, contextlib.ExitStack() as connection:
        driver = other.submit(importlib.import_module, "study.commands.run")
        begun = workspace.ledger.exists()
        if not begun:
            from study.cluster.connection import connected

            # in this thread: Ray's processes end with the one that has started them
            connection.enter_context(connected(address, num_cpus))
        yield driver.result(), None if begun else connection
