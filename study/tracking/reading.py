"""A study read back from an MLflow store, local or a server: the specification and the ledger's own lines, bit for bit.

Tables made from it equal those made from the ledger. Nothing is written; a view that is behind is read as far as it goes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from search_spaces import Spec, spec_from
from study.atomic import checksum_of
from study.errors import UserError, nearest
from study.results.files import kept_path
from study.results.ledger import Contents, decode, record_fault
from study.results.workspace import refuse_edited
from study.schema import Registration, Session, departure
from study.tracking.runs import MOST_RATIO, MOST_UNPACKED, STUDY_PHASE, packed_size, unpack
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


class _Packed(TypedDict):
    """What the run of the study itself holds, packed into its tags."""

    spec: dict[str, Any]
    sessions: list[Session]
    registration: Registration | None


def packed_study(tags: Mapping[str, str], most: int = MOST_UNPACKED) -> _Packed:
    """The specification, sessions and registration in a run's tags. Raises ``ValueError`` that says what is wrong."""
    text = unpack(tags, most)
    try:
        study: _Packed = json.loads(text or b"")
    except (ValueError, RecursionError):
        raise ValueError("does not hold its specification") from None
    if told := departure(study, _Packed):
        raise ValueError(f"holds something else{told}")
    return study


def read_study(uri: str, name: str, folder: Path | None = None) -> ReadStudy:
    """The study ``name`` in the store at ``uri``. Tables that its statistics kept are copied to ``folder``.

    Raises ``UserError`` if the store does not answer, has no such study, or holds a view without the ledger's lines (made by
    an older version, or changed by hand); ``SpecError`` if the specification in it is none.
    """
    with as_user_error(uri):
        held = read_runs(uri, name)
        names = [] if held else study_names(uri)
    if not held:
        raise UserError(f"MLflow at {masked(uri)} holds no study {name!r}{nearest(name, names) if names else ''}")
    parents = [run for run in held if run.tags.get("phase") == STUDY_PHASE]
    room = MOST_UNPACKED + MOST_RATIO * sum(packed_size(run.tags) for run in held)
    try:
        if len(parents) != 1:
            raise ValueError("does not hold its specification")
        study = packed_study(parents[0].tags, room)
    except ValueError as error:
        raise _behind(uri, name, f"the run of the study itself {error}") from None
    spec = spec_from(study["spec"], f"{masked(uri)}#{name}")
    if spec.name != name:
        raise _behind(uri, name, f"the specification there is of {spec.name!r}")
    if study["registration"] is not None:
        refuse_edited(study["registration"], f"{masked(uri)}#{name}")
    contents, unwritten = Contents(), 0
    for run in sorted((run for run in held if "trial_key" in run.tags), key=_order):
        shown = repr(run.name[:100])
        try:
            lines = unpack(run.tags, room)
        except UserError as error:
            raise _behind(uri, name, f"run {shown} holds {error}") from None
        if lines is None and run.status == "RUNNING":
            unwritten += 1
            continue
        room -= len(lines or b"")
        for record in map(decode, (lines or b"").splitlines() or [b""]):
            if record is None:
                raise _behind(uri, name, f"run {shown} does not hold the ledger's lines")
            if (fault := record_fault(record)) or record["trial_key"] != run.tags["trial_key"]:
                raise _behind(uri, name, f"run {shown} holds another record{fault}")
            contents.add(record)
    if folder:
        _fetch(uri, name, parents[0].run_id, contents, folder)
    return ReadStudy(
        spec=spec,
        contents=contents,
        sessions=[dict(session) for session in study["sessions"]],
        registration=study["registration"],
        num_unwritten=unwritten,
    )


def _fetch(uri: str, name: str, run_id: str, contents: Contents, folder: Path) -> None:
    """Bring the kept tables that ``folder`` lacks, or holds damaged."""
    lacking = []
    for key, record in contents.measures.items():
        for table in record.get("kept", []):
            path, checksum = (
                kept_path(folder, record["trial_key"], key, table),
                record.get("kept_checksums", {}).get(table),
            )
            if not path.exists() or (checksum and checksum_of(path) != checksum):
                lacking.append(path.relative_to(folder).as_posix())
    if lacking:
        with as_user_error(uri):
            fetch_files(uri, name, run_id, lacking, folder)


def _order(run: HeldRun) -> tuple[bool, int, int, str]:
    """As the ledger was written: what is superseded comes before what supersedes it, which is all that tables ask."""
    return run.tags.get("superseded") != "yes", run.end or run.start, run.start, run.tags["trial_key"]


def _behind(uri: str, name: str, what: str) -> UserError:
    return UserError(
        f"MLflow at {masked(uri)}: {what}; bring the view up to date where the ledger is: "
        f"fmm-study ui {name} --tracking-uri {masked(uri)}"
    )
