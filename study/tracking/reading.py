"""A study read back from an MLflow store, local or a server: the specification and the ledger's own lines, bit for bit.

Tables made from it equal those made from the ledger. Nothing is written; a view that is behind is read as far as it goes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces import Spec, spec_from
from study.errors import UserError, nearest
from study.results.files import MEASUREMENTS, kept_path
from study.results.ledger import Contents, decode
from study.tracking.runs import STUDY_PHASE, unpack
from study.tracking.store import HeldRun, fetch_files, masked, read_runs, study_names
from study.tracking.view import as_user_error


@dataclass(frozen=True, kw_only=True)
class ReadStudy:
    """A study: ``contents`` in the order of writing; ``sessions``: what it was run with; ``registration``: what it claimed.

    ``num_unwritten``: runs in a store that a driver is writing, or was when it was killed; they are not in ``contents``.
    """

    spec: Spec
    contents: Contents
    sessions: list[dict[str, Any]]
    registration: Mapping[str, Any] | None = None
    num_unwritten: int = 0


def read_study(uri: str, name: str, folder: Path | None = None) -> ReadStudy:
    """The study ``name`` in the store at ``uri``. Tables that its statistics kept are copied to ``folder``.

    Raises ``UserError`` if the store does not answer, has no such study, or holds a view without the ledger's lines (made by
    an older version, or changed by hand).
    """
    with as_user_error(uri):
        held = read_runs(uri, name)
        names = [] if held else study_names(uri)
    if not held:
        raise UserError(f"MLflow at {masked(uri)} holds no study {name!r}{nearest(name, names) if names else ''}")
    parents = [run for run in held if run.tags.get("phase") == STUDY_PHASE]
    text = unpack(parents[0].tags) if len(parents) == 1 else None
    if text is None:
        raise _behind(uri, name, "the run of the study itself does not hold its specification")
    study = json.loads(text)
    contents, unwritten = Contents(), 0
    for run in sorted((run for run in held if "trial_key" in run.tags), key=_order):
        lines = unpack(run.tags)
        if lines is None and run.status == "RUNNING":
            unwritten += 1
            continue
        for record in map(decode, (lines or b"").splitlines() or [b""]):
            if record is None:
                raise _behind(uri, name, f"run {run.name!r} does not hold the ledger's lines")
            contents.add(record)
    kept = ((key, record, table) for key, record in contents.measures.items() for table in record.get("kept", []))
    if folder and not all(kept_path(folder, record["trial_key"], key, table).exists() for key, record, table in kept):
        with as_user_error(uri):
            fetch_files(uri, parents[0].run_id, MEASUREMENTS, folder)
    return ReadStudy(
        spec=_spec(study["spec"], f"{masked(uri)}#{name}"),
        contents=contents,
        sessions=study["sessions"],
        registration=study["registration"],
        num_unwritten=unwritten,
    )


def with_changes(spec: Spec, overrides: list[str], origin: str) -> Spec:
    """``spec`` with ``dotted.key=value`` overrides. Raises ``SpecError``, which names ``origin``."""
    return _spec(spec.model_dump(mode="json"), origin, overrides) if overrides else spec


def _spec(values: dict[str, Any], origin: str, overrides: list[str] | None = None) -> Spec:
    return spec_from(values, origin, overrides or [])


def _order(run: HeldRun) -> tuple[bool, int, int, str]:
    """As the ledger was written: what is superseded comes before what supersedes it, which is all that tables ask."""
    return run.tags.get("superseded") != "yes", run.end or run.start, run.start, run.tags["trial_key"]


def _behind(uri: str, name: str, what: str) -> UserError:
    return UserError(
        f"MLflow at {masked(uri)}: {what}; bring the view up to date where the ledger is: "
        f"fmm-study ui {name} --tracking-uri {masked(uri)}"
    )
