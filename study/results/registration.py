"""``claims.json``: what a study claimed before it had results.

The driver writes it before the first confirmed replicate, and then only adds to it: a later run with other claims leaves the
first ones there, and adds its own with the number of replicates known by then.

Source: https://doi.org/10.1073/pnas.1708274114
"""

import json
import time
from pathlib import Path
from typing import Any

from search_spaces import Spec
from search_spaces.registered import changes, digest, registered
from study.atomic import read_json, write_text
from study.results.files import CLAIMS


def read_registration(root: Path) -> dict[str, Any] | None:
    """What ``claims.json`` holds: ``digest``, ``registered``, ``since``, ``confirm_began`` (a time or ``None``), ``later``."""
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
