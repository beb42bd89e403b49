"""A driver's lease on a study, beside its lock: some file systems (NFS mounted with ``nolock``) lock nothing between hosts.

The lease is a marker in the study's folder that names its owner, and that the owner touches every ``HEARTBEAT`` seconds.
Another driver takes it over at once where the owner's process is known to have ended (the same host: its number and when it
began), else after it has seen no touch for ``LEASE_SECONDS`` of its own monotonic clock: clocks of hosts are not compared. Who
has lost a lease finds another's mark before the next record and stops.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, LeaseSettingsMismatch, SoftFileLease, Timeout

from study.atomic import is_alive, read_json, read_regular
from study.errors import UserError
from study.results.files import HOLDER, LEASE, LOCK
from study.schema import Holder

LEASE_SECONDS = 60.0
HEARTBEAT = 5.0
# Commands that only read wait for a touch this long, where they cannot know better.
_WATCHED = 2.5 * HEARTBEAT
_POLL = 0.2
Guard = Callable[[], None]


def hold_lease(stack: contextlib.ExitStack, root: Path, tell: Callable[[str], None]) -> Guard:
    """Take the lease of the study in ``root`` until ``stack`` is closed; what raises ``UserError`` once it is lost.

    ``tell`` gets a line where the owner may still be alive and has to be watched. Raises ``UserError`` naming a living owner.
    """
    marker = root / LEASE
    lease = SoftFileLease(marker, lease_duration=LEASE_SECONDS, heartbeat_interval=HEARTBEAT)
    owner = read_holder(root)
    here = owner["host"] == socket.gethostname()
    try:
        lease.acquire(timeout=1.0, poll_interval=_POLL)
    except LeaseSettingsMismatch:
        raise UserError(
            f"{held_by_another(root)}; its version watches another time: once it has ended, remove {marker}"
        ) from None
    except Timeout:
        if here:
            raise held_by_another(root) from None
        before = _touched(marker)
        tell(
            f"waiting up to {LEASE_SECONDS:.0f} s for a sign of life of process {owner['pid']} on {owner['host']}, "
            f"which runs this study since {owner['since']}"
        )
        try:
            lease.acquire(
                timeout=LEASE_SECONDS + 2 * HEARTBEAT,
                poll_interval=_POLL,
                cancel_check=lambda: _touched(marker) not in (before, None),
            )
        except Timeout:
            raise held_by_another(root) from None
    stack.callback(lease.release)
    token = (lease.token or "").encode()

    def guard() -> None:
        if token not in (read_regular(marker) or b""):
            raise UserError(
                f"study {root.name!r} was taken over by {_who(read_holder(root))}, because this driver gave no sign of life "
                f"for {LEASE_SECONDS:.0f} s: it stops, and has lost nothing"
            )

    return guard


def living_holder(root: Path) -> dict[str, Any] | None:
    """The driver at work on the study in ``root``; ``None`` where there is none. Writes nothing.

    Where the lock is free but another host's lease is there, it is watched for some seconds.
    """
    owner, marker = read_holder(root), root / LEASE
    with contextlib.suppress(OSError, NotImplementedError):
        if (root / LOCK).exists():
            try:
                with FileLock(root / LOCK, timeout=0):
                    pass
            except Timeout:
                return owner
    before = _touched(marker)
    if before is None or (owner["host"] == socket.gethostname() and not is_alive(owner["pid"])):
        return None
    until = time.monotonic() + _WATCHED
    while time.monotonic() < until:
        time.sleep(_POLL)
        if _touched(marker) != before:
            return owner if _touched(marker) is not None else None
    return None


def read_holder(root: Path) -> dict[str, Any]:
    """What ``driver.json`` says of the driver at work; ``?`` for what is not known."""
    unknown: dict[str, Any] = dict.fromkeys(("pid", "host", "since"), "?")
    with contextlib.suppress(UserError):
        return unknown | (read_json(root / HOLDER, Holder) or {})
    return unknown


def held_by_another(root: Path) -> UserError:
    """The error of a driver that comes second."""
    return UserError(f"study {root.name!r} is being run by {_who(read_holder(root))}; one driver a study")


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']} since {owner['since']}"


def _touched(marker: Path) -> int | None:
    """When the marker was touched last, by the storage's clock; ``None`` where there is none."""
    with contextlib.suppress(OSError):
        return marker.stat().st_mtime_ns
    return None
