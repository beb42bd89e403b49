"""The sessions of a study in ``provenance.json``, read: what it was run with, what was accepted, whether it has ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study.atomic import read_json, write_json
from study.results.files import PROVENANCE
from study.results.ledger import Contents
from study.schema import Session


def read_sessions(root: Path) -> list[dict[str, Any]]:
    """The entries, oldest first; none for a study that was never run."""
    sessions: list[dict[str, Any]] = read_json(root / PROVENANCE, list[Session]) or []
    return sessions


def accepted_changes(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Changes of data and plug-ins that a user accepted, each with the session, counted from 1."""
    return [
        f"{line} (accepted in session {number} of {len(sessions)})"
        for number, session in enumerate(sessions, start=1)
        for line in session.get("accepted", [])
    ]


def session_tags(session: Mapping[str, Any]) -> dict[str, str]:
    """A session as flat tags: ``git_commit``, ``git_dirty``, ``python``, ``device``, ``version.torch``, ..."""
    tags = {key: str(value) for key, value in session.items() if not isinstance(value, dict | list)}
    if "git_commit" in tags:
        # the name under which MLflow's own pages show a version
        tags["mlflow.source.git.commit"] = tags["git_commit"]
    return tags | {f"version.{name}": version for name, version in session.get("packages", {}).items()}


def note_end(root: Path, contents: Contents) -> None:
    """Note in the last session that nothing is left to run after ``contents``: who reads it need not work that out."""
    sessions = read_sessions(root)
    if sessions and not is_end(sessions, contents):
        sessions[-1]["ended"] = _end(contents)
        write_json(root / PROVENANCE, sessions)


def is_end(sessions: Sequence[Mapping[str, Any]], contents: Contents) -> bool:
    """Whether a study was noted to end with as many records as ``contents`` has; older versions note nothing."""
    return bool(sessions) and sessions[-1].get("ended") == _end(contents)


def _end(contents: Contents) -> dict[str, int]:
    return {"replicates": len(contents.replicates), "measures": len(contents.measures)}


def without_end(session: Mapping[str, Any]) -> dict[str, Any]:
    """A session but for whether the study has ended."""
    return {name: value for name, value in session.items() if name != "ended"}
