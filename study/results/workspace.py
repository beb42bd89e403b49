"""A study's folder ``results/<study>/``: its one driver's lock, the specification frozen as it began, its registered claims.

A later run may add levels, blocks, trials or statistics. It is refused, naming the value, when it changes what finished
replicates rest on. Claims are registered in ``claims.json`` before the first confirmed replicate. A later run with other
claims leaves the first ones there, and adds its own with the number of replicates known by then.

Source: https://doi.org/10.1073/pnas.1708274114
"""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from search_spaces import Spec
from search_spaces.registered import changes, digest, registered
from study.atomic import read_json, write_text
from study.errors import UserError
from study.results.files import CLAIMS, HOLDER, LEDGER, LOCK, SPECIFICATION, TABLES_FOLDER

# Changing these changes no finished result: placement, wording, what is measured, compared or kept. A change of claims is
# let through and reported from then on (``register``).
_FREE = {
    "title", "demonstration", "measure", "contrasts", "control", "claims", "level_claims", "published", "alpha", "sequential",
    "checkpoints", "plugins", "doses", "resources.cpus", "resources.gpus",
    # whether cells have gone is checked by itself
    "factors",
}  # fmt: skip
_GROWING = ("blocks", "budget.search_trials", "budget.shortened")


@dataclass(frozen=True)
class Workspace:
    """The folder of one study. Raises ``UserError`` for an address, such as ``s3://bucket``."""

    root: Path

    def __post_init__(self) -> None:
        # as a path, s3://bucket would be a folder called "s3:"
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(self.root)):
            raise UserError(
                f"--storage {self.root.parent}: a folder is needed, on a filesystem that all hosts share (NFS)"
            )

    @property
    def ledger(self) -> Path:
        """The ledger's segments."""
        return self.root / LEDGER

    @property
    def tables(self) -> Path:
        """Exported tables."""
        return self.root / TABLES_FOLDER

    def holder(self) -> dict[str, Any] | None:
        """The driver at work: ``pid``, ``host``, ``since``; ``None`` when the lock is free."""
        try:
            with FileLock(self.root / LOCK, timeout=0):
                return None
        except Timeout:
            unknown = dict.fromkeys(("pid", "host", "since"), "?")
            return unknown | (read_json(self.root / HOLDER) or {})
        except OSError:
            return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only driver of this study. Raises ``UserError`` naming the holder, or why the folder is unwritable."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / LOCK, timeout=0)
            lock.acquire()
        except Timeout:
            who = self.holder() or {}
            raise UserError(
                f"study {self.root.name!r} is being run by process {who.get('pid', '?')} on {who.get('host', '?')} "
                f"since {who.get('since', '?')}; one driver a study"
            ) from None
        except OSError as error:
            raise UserError(f"results folder {self.root}: {error.strerror or error}") from None
        holder = self.root / HOLDER
        with lock:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            write_text(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)

    def freeze(self, spec: Spec) -> Spec | None:
        """Record ``spec``; what was recorded before. Raises ``UserError`` where ``spec`` does more than extend that."""
        path = self.root / SPECIFICATION
        now = json.loads(spec.model_dump_json())
        # through the model: a key that is new since then has its default
        held = read_json(path)
        before = json.loads(Spec.model_validate(held).model_dump_json()) if held else None
        if before:
            refuse_change(before, now, where=str(self.root))
        write_text(path, json.dumps(now, indent=2) + "\n")
        return Spec.model_validate(before) if before else None


def refuse_change(before: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Raise ``UserError`` naming the first value by which ``now`` is another study than ``before``."""
    old, new = _comparable(before), _comparable(now)
    for key in dict.fromkeys([*old, *new]):
        if key not in _GROWING and old.get(key) != new.get(key):
            raise UserError(
                f"{where} holds results of another specification: {key} was {old.get(key)!r}, now {new.get(key)!r}; "
                "use another name or --storage, or put the value back"
            )
    for share in old["budget.shortened"]:
        if share not in new["budget.shortened"]:
            raise UserError(
                f"{where} holds trainings of a share {share:g} of the epochs; put it back: budget.shortened"
            )
    for key in ("blocks", "budget.search_trials"):
        if new[key] < old[key]:
            raise UserError(f"{where} holds results with {key} = {old[key]!r}; it can grow, not shrink to {new[key]!r}")
    if new.get("joint.confirm") and _cells(before) != _cells(now):
        raise UserError(f"{where} holds results of a joint search over other cells; use another name or --storage")
    gone = [cell for cell in _cells(before) if cell not in _cells(now)]
    if gone:
        raise UserError(f"{where} holds results of cell {gone[0]!r}, which the specification no longer has")


def _comparable(spec: dict[str, Any]) -> dict[str, Any]:
    # what is measured while a network trains cannot be had afterwards
    flat: dict[str, Any] = {"measure.during": spec["measure"]["during"]}
    for key, value in spec.items():
        if key not in _FREE:
            flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return {key: value for key, value in flat.items() if key not in _FREE}


def _cells(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(sorted(cell.items())) for cell in Spec.model_validate(spec).cells()]


def read_registration(root: Path) -> dict[str, Any] | None:
    """The fields of ``claims.json``, among them ``confirm_began`` (a time or ``None``); ``None`` without such a file."""
    held: dict[str, Any] | None = read_json(root / CLAIMS)
    return held


def register(root: Path, spec: Spec, before: Spec | None, num_confirmed: int) -> None:
    """Fix the claims of ``spec``, or, where ``num_confirmed`` is above 0, add them as a later change.

    ``before`` is the specification of the last run, whose claims bind a study that has replicates and no ``claims.json``.
    """
    held, now = read_registration(root), registered(spec)
    if held is None or not num_confirmed:
        old = registered(before) if before and num_confirmed else now
        held = {"digest": digest(old), "registered": old, "since": _now(), "confirm_began": None, "later": []}
    known = {held["digest"], *(entry["digest"] for entry in held["later"])}
    if digest(now) not in known:
        departs = [change.text for change in changes(held["registered"], now)]
        entry = {"digest": digest(now), "since": _now(), "num_confirmed": num_confirmed, "changes": departs}
        held["later"] += [entry] if departs else []
    _write(root, held)


def note_confirm(root: Path) -> None:
    """Note, once, the time of the first confirmed replicate."""
    held = read_registration(root)
    if held is not None and held["confirm_began"] is None:
        _write(root, held | {"confirm_began": _now()})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _write(root: Path, held: dict[str, Any]) -> None:
    write_text(root / CLAIMS, json.dumps(held, indent=2) + "\n")
